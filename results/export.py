"""What a run found, as a file: CSV, Parquet, JSON or Markdown by its ending; a model card; every_eval_ever."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from weighin.results.errors import WeighinError
from weighin.results.every_eval_ever import records
from weighin.results.lookup import run_named, unknown
from weighin.results.model_card import model_card
from weighin.results.opening import reading
from weighin.results.render import plain
from weighin.results.store import Store

What = Literal["scores", "samples", "variants", "model-card", "every-eval-ever"]

_QUERIES: dict[str, str] = {
    "scores": "select * from scores where run_id = ? order by position, suite, metric",
    "samples": """select c.run_id, c.label as variant, e.variant_key, c.suite, s.metric, s.item, s.rep, s.cluster,
            s.value, s.low, s.high, m.unit, s.weight, s.source, s.reason, s.detail
        from cells c join evaluations e using (evaluation_id) join samples s using (evaluation_id)
        left join labels l using (run_id, label) left join metrics m using (evaluation_id, metric)
        where c.run_id = ? and c.status = 'ok' order by l.position, c.suite, s.metric, s.rowid""",
    "variants": "select * from variant_cards where run_id = ? order by position",
}


def export(
    store: Store, path: Path | str, *, what: What = "scores", run: str | None = None, variant: str | None = None
) -> Path:
    """Write what `run` (default: the newest) found to `path`, and return it.

    Scores, samples and variants are tables; a model card and records of every_eval_ever may be of one `variant`. The
    file appears whole or not at all. Raises `WeighinError` for an ending or a content it does not know, and where the
    file cannot be written.
    """
    target = Path(path).expanduser().absolute()
    if what not in WHATS:
        raise WeighinError(f"export: nothing is called {what!r}. There is: {', '.join(WHATS)}")
    writers = _WRITERS if what in _QUERIES else _DOCUMENTS[what]
    write = writers.get(target.suffix.lower())
    if write is None:
        raise WeighinError(f"{target}: no format for {target.suffix!r}. There is: {', '.join(writers)}")
    home = run_named(store, run)
    if variant is not None:
        _check_variant(store, home, variant, what)
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        write(store, _QUERIES.get(what) or variant, home, draft)
        draft.replace(target)
    except OSError as error:
        raise WeighinError(f"{target}: cannot be written: {error.strerror or error}") from error
    finally:
        draft.unlink(missing_ok=True)
    return target


def _check_variant(store: Store, run: str, variant: str, what: str) -> None:
    if what in _QUERIES:
        raise WeighinError(f"export: --variant is of {' and '.join(_DOCUMENTS)}; {what} are always of a whole run")
    known = [row["label"] for row in store.rows("select label from labels where run_id = ?", [run])]
    if variant not in known:
        raise unknown(f"variant of run {run}", variant, known)


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
    return plain(value if isinstance(value, str) else _text(value))


def _text(value: Any) -> str:
    if hasattr(value, "isoformat"):
        return str(value.isoformat())
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _card(store: Store, variant: str | None, run: str, path: Path) -> None:
    path.write_text(model_card(store, run, variant), encoding="utf-8")


def _records(store: Store, variant: str | None, run: str, path: Path) -> None:
    """One record as it is, several as a list."""
    found = list(records(store, run, variant))
    shown = found[0] if len(found) == 1 else found
    path.write_text(json.dumps(shown, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _record_lines(store: Store, variant: str | None, run: str, path: Path) -> None:
    lines = (json.dumps(record, ensure_ascii=False) for record in records(store, run, variant))
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


_WRITERS: dict[str, Callable[[Store, Any, str, Path], None]] = {
    ".csv": _csv,
    ".parquet": _parquet,
    ".json": _json,
    ".md": _markdown,
}
_DOCUMENTS: dict[str, dict[str, Callable[[Store, Any, str, Path], None]]] = {
    "model-card": {".md": _card},
    "every-eval-ever": {".json": _records, ".jsonl": _record_lines},
}
WHATS = (*_QUERIES, *_DOCUMENTS)
"""What can be exported."""
