"""The board: eight pages on one store, each a file of its own. `weighin board` serves it."""

import streamlit as st

from weighin.leaderboard.page import PAGES

# Streamlit would print a bare string of this file on the page, so what constants mean is said in comments here.

ICONS = {
    "overview": ":material/balance:",
    "leaderboard": ":material/leaderboard:",
    "pareto": ":material/scatter_plot:",
    "variant": ":material/badge:",
    "compare": ":material/compare_arrows:",
    "nightly": ":material/bedtime:",
    "instruments": ":material/tune:",
    "runs": ":material/progress_activity:",
}
# The address of a page that is not its name.
URL = {"overview": "home"}


def main() -> None:
    """Draw the page that was asked for."""
    st.set_page_config(page_title="Weighin", page_icon="⚖️", layout="wide")
    st.html("<style>.stMainBlockContainer { padding: 4rem clamp(1rem, 4vw, 4rem) 3rem }</style>")
    pages = [
        st.Page(
            f"page_{name}.py",
            title=name.capitalize(),
            icon=ICONS[name],
            url_path=URL.get(name, name),
            default=name in URL,
        )
        for name in PAGES
    ]
    # the first page lives at the address's root, and Streamlit knows it by no other: whoever writes out its name, which
    # the page itself must not bear then, is brought there
    pages.append(st.Page(_home, title="Overview", url_path="overview", visibility="hidden"))
    st.navigation(pages, position="top").run()


def _home() -> None:
    st.switch_page("page_overview.py", query_params=list(st.query_params.items()))


main()
