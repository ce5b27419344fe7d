"""Static HTML of the board's tables and charts: one style sheet, no script, no address but those of its own files."""

import html
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import pandas as pd

STYLE = """
:root { color-scheme: light dark; --ground: #fff; --text: #1b1f24; --line: #d0d7de; --soft: #f3f5f7; --link: #0b66a8 }
@media (prefers-color-scheme: dark) {
  :root { --ground: #0e1117; --text: #e6e9ee; --line: #3a404a; --soft: #1a1f27; --link: #6cb6f0 } }
body { background: var(--ground); color: var(--text); font: 15px/1.5 system-ui, sans-serif; margin: 0 auto;
  padding: 1rem; max-width: 80rem }
nav { display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; border-bottom: 1px solid var(--line); padding-bottom: .6rem }
a { color: var(--link) }
h1 { font-size: 1.7rem; margin: .8rem 0 .2rem } h2 { font-size: 1.2rem; margin: 1.6rem 0 .4rem }
p { white-space: pre-wrap; overflow-wrap: anywhere; margin: .4rem 0 }
.wide { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; max-height: 40rem }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums }
th, td { padding: .3rem .6rem; text-align: left; vertical-align: top; max-width: 28rem; overflow-wrap: anywhere;
  border-bottom: 1px solid var(--line) }
td { white-space: pre-wrap } thead th { background: var(--soft); position: sticky; top: 0 }
figure { margin: .6rem 0; background: #fff; border-radius: 6px; padding: .4rem; overflow-x: auto }
.verdict { border-left: 5px solid var(--link); padding: .4rem .8rem; background: var(--soft) }
"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""What a browser may load for these pages: nothing. A label that got through as markup could not run either."""

Part = str
"""A piece of HTML that this module has made."""


def text(value: Any) -> Part:
    """A paragraph; whatever it says is text."""
    return f"<p>{html.escape(str(value))}</p>"


def heading(value: str) -> Part:
    """A heading of a section."""
    return f"<h2>{html.escape(value)}</h2>"


def verdict(value: str) -> Part:
    """A sentence that nobody may miss."""
    return f'<p class="verdict"><strong>{html.escape(value)}</strong></p>'


def table(frame: pd.DataFrame, name: str, *, links: dict[str, str] | None = None, raw: Collection[str] = ()) -> Part:
    """A table with a caption for whoever cannot see it.

    `links` are addresses by the text of the first column; columns in `raw` hold pictures that this project has drawn.
    """
    if frame.empty:
        return text("None.")
    names = [" ".join(filter(None, map(str, each))) if isinstance(each, tuple) else str(each) for each in frame.columns]
    head = "".join(f'<th scope="col">{html.escape(each.strip())}</th>' for each in names)
    rows = []
    for values in frame.itertuples(index=False):
        cells = [value if each in raw else _cell(value) for each, value in zip(names, values, strict=True)]
        address = (links or {}).get(str(values[0]))
        if address:
            cells[0] = f'<a href="{html.escape(address)}">{cells[0]}</a>'
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    label = html.escape(name)
    return (
        f'<div class="wide" role="region" aria-label="{label}" tabindex="0"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and value != value):
        return ""
    return html.escape(f"{value:.6g}" if isinstance(value, float) else str(value))


def figure(chart: Any, alternative: str) -> Part:
    """A chart as a picture with its text alternative. Raises ImportError where vl-convert is missing."""
    import vl_convert

    spec = chart.properties(width=860).to_json()
    drawn = vl_convert.vegalite_to_svg(spec, allowed_base_urls=[])
    return f'<figure role="img" aria-label="{html.escape(alternative, quote=True)}">{drawn}</figure>'


def page(title: str, pages: Iterable[tuple[str, str]], parts: Sequence[Part]) -> str:
    """A whole document; `pages` are (address, title) of its siblings."""
    links = "".join(f'<a href="{html.escape(to)}">{html.escape(name)}</a>' for to, name in pages)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)} · Weighin</title><style>{STYLE}</style></head><body>"
        f"<nav>{links}</nav><h1>{html.escape(title)}</h1>{''.join(parts)}</body></html>\n"
    )
