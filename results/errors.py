"""The errors a user may see. Each message says where, what is wrong, and what is allowed."""


class WeighinError(Exception):
    """Something the user can mend; shown as one message, never as a traceback."""


class StoreError(WeighinError):
    """The store cannot be opened, read or written."""
