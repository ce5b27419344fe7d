"""A table of words on the page, with room for reasons."""

from collections.abc import Iterable

import pandas as pd
import streamlit as st


def text_table(frame: pd.DataFrame) -> None:
    """A table of words; reasons get the room."""
    config = {name: st.column_config.Column(width="large") for name in ("reason", "why") if name in frame}
    config["variant"] = st.column_config.Column(width=label_width(frame["variant"]))
    st.dataframe(frame, hide_index=True, width="stretch", column_config=config)


def label_width(labels: Iterable[str]) -> int:
    """Pixels for the widest label, but never so many that a telephone shows nothing else."""
    return min(22 + 8 * max(map(len, labels), default=0), 180)
