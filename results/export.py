"""What a run found, as a file: CSV, Parquet, JSON or Markdown by its ending."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from weighin.results.database import reading
from weighin.results.errors import WeighinError
from weighin.results.lookup import run_named
from weighin.results.store import Store

What = Literal["scores", "samples", "variants"]

_QUERIES: dict[str, str] = {
    "scores": "select * from scores where run_id = ? order by position, suite, metric",
    "samples": """select c.run_id, c.label as variant, e.variant_key, c.suite, s.metric, s.item, s.rep, s.cluster,
            s.value, s.low, s.high, m.unit, s.weight, s.source, s.reason, s.detail
        from cells c join evaluations e using (evaluation_id) join samples s using (evaluation_id)
        left join labels l using (run_id, label) left join metrics m using (evaluation_id, metric)
        where c.run_id = ? and c.status = 'ok' order by l.position, c.suite, s.metric, s.rowid""",
    "variants": "select * from variant_cards where run_id = ? order by position",
}


def export(store: Store, path: Path | str, *, what: What = "scores", run: str | None = None) -> Path:
    """Write the scores, samples or variants of `run` (default: the newest) to `path`, and return it.

    The file appears whole or not at all. Raises `WeighinError` for an ending or a content it does not know, and
    where the file cannot be written.
    """
    target = Path(path).expanduser().absolute()
    if what not in _QUERIES:
        raise WeighinError(f"export: nothing is called {what!r}. There is: {', '.join(_QUERIES)}")
    write = _WRITERS.get(target.suffix.lower())
    if write is None:
        raise WeighinError(f"{target}: no format for {target.suffix!r}. There is: {', '.join(_WRITERS)}")
    home = run_named(store, run)
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        write(store, _QUERIES[what], home, draft)
        draft.replace(target)
    except OSError as error:
        raise WeighinError(f"{target}: cannot be written: {error.strerror or error}") from error
    finally:
        draft.unlink(missing_ok=True)
    return target


def _parquet(store: Store, sql: str, run: str, path: Path) -> None:
    path.touch()  # says at once, as an OSError, where nothing can be written
    with reading(store.path, store.patience) as con:
        con.sql(sql, params=[run]).write_parquet(str(path))


def _csv(store: Store, sql: str, run: str, path: Path) -> None:
    path.touch()
    with reading(store.path, store.patience) as con:
        con.sql(sql, params=[run]).write_csv(str(path), header=True)


def _json(store: Store, sql: str, run: str, path: Path) -> None:
    rows = store.rows(sql, [run])
    path.write_text(json.dumps(rows, indent=1, default=_text, ensure_ascii=False) + "\n", encoding="utf-8")


def _markdown(store: Store, sql: str, run: str, path: Path) -> None:
    rows = store.rows(sql, [run])
    path.write_text(markdown(rows), encoding="utf-8")


def markdown(rows: list[dict[str, Any]]) -> str:
    """A GitHub-flavoured table; text stays plain text whatever it holds."""
    if not rows:
        return ""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    text = value if isinstance(value, str) else _text(value)
    for sign in "\\`*_<>[]|":
        text = text.replace(sign, "\\" + sign)
    return " ".join(text.split())


def _text(value: Any) -> str:
    if hasattr(value, "isoformat"):
        return str(value.isoformat())
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


_WRITERS: dict[str, Callable[[Store, str, str, Path], None]] = {
    ".csv": _csv,
    ".parquet": _parquet,
    ".json": _json,
    ".md": _markdown,
}
