"""One suite a file: a function that measures a model and yields samples."""
