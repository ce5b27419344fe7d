"""Shows: the Streamlit page. Reads the store, writes nothing."""
