"""Taking over what other tools measured: finding their files, telling what each is, keeping each as a run."""

import codecs
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from weighin.results import import_inspect, import_lm_eval, import_optimum_benchmark, import_pytest_benchmark
from weighin.results.errors import WeighinError
from weighin.results.foreign import Log, keep
from weighin.results.outside import parsed, read_bytes
from weighin.results.store import Store

Format = Literal["lm-eval", "optimum-benchmark", "pytest-benchmark", "inspect"]

FORMATS: dict[str, Any] = {
    module.TOOL: module
    for module in (import_inspect, import_lm_eval, import_pytest_benchmark, import_optimum_benchmark)
}
"""By the tool's name; the first one that recognizes a file reads it."""
ENDINGS = {".json", ".csv", ".eval"}
"""What is looked at in a directory; samples are read along with the results that they belong to."""
MOST = 100_000
"""Files of one directory tree."""


@dataclass(frozen=True)
class Outcome:
    """What became of a file: a run, or an `error`. `fresh` is False where the store held it already.

    A file that was found in a directory and is of no format is no outcome.
    """

    path: Path
    run_id: str | None = None
    fresh: bool = False
    origin: str = ""
    labels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    error: str | None = None


def import_files(
    store: Store, paths: Sequence[str | Path], *, label: str | None = None, format: Format | None = None
) -> Iterator[Outcome]:
    """Keep every file that `paths` name or hold, one after the other, and say what became of each.

    `label` names the model. Raises `WeighinError` for a path that does not exist, before anything is kept, and where
    the store cannot be written.
    """
    if format is not None and format not in FORMATS:
        raise WeighinError(f"import: no format {format!r}. There is: {', '.join(FORMATS)}")
    given = [Path(path).expanduser() for path in paths]
    for path in given:
        if not path.exists():
            raise WeighinError(f"import: no file {path} (looked in {Path.cwd()})")
    if store.exists():
        with store.together():  # says at once where it cannot be written, rather than for each file
            pass
    for path in given:
        known = False
        for file in _below(path) if path.is_dir() else [path]:
            if outcome := _import(store, file, label, format):
                known = True
                yield outcome
        if not known:
            yield Outcome(path, error=_nothing(path, format))


def _nothing(path: Path, format: str | None) -> str:
    if path.suffix == ".jsonl":
        return f"{path}: samples are read along with their results_*.json; name that, or the directory of both"
    what = "holds no file" if path.is_dir() else "is no file"
    return f"{path}: {what} of {format or ', '.join(FORMATS)}"


def _below(folder: Path) -> Iterator[Path]:
    """Files of a directory tree that may be results, in order of name; links to directories are not followed."""
    count = 0
    for at, folders, files in os.walk(folder):
        folders.sort()
        for file in sorted(files):
            path = Path(at) / file
            if path.suffix.lower() in ENDINGS and path.is_file():
                count += 1
                if count > MOST:
                    raise WeighinError(f"{folder}: has more than {MOST:,} files; name a smaller directory")
                yield path


def _import(store: Store, path: Path, label: str | None, format: str | None) -> Outcome | None:
    """One file; None where it is of no format."""
    try:
        log = read(path, format)
        if log is None:
            return None
        fresh, labels = keep(store, log, label)
    except RecursionError:
        return Outcome(path, error=f"{path}: is nested too deeply")
    except WeighinError as error:
        said = str(error)
        return Outcome(path, error=said if str(path) in said else f"{path}: {said}")
    told = f"{log.tool} {log.version or ''}".strip()
    return Outcome(path, log.run_id, fresh, told, labels, tuple(log.notes))


def read(path: Path, format: str | None = None) -> Log | None:
    """The log of a file; None where no format, or not the one that is asked for, is recognized. Raises `Unreadable`."""
    allowed = {name: module for name, module in FORMATS.items() if format in (None, name)}
    with path.open("rb") as file:
        zipped = file.read(4) == b"PK\x03\x04"
    if zipped or path.suffix.lower() == ".eval":
        return import_inspect.read_zip(path) if import_inspect.TOOL in allowed else None
    if path.suffix.lower() == ".csv":
        return import_optimum_benchmark.read_csv(path) if import_optimum_benchmark.TOOL in allowed else None
    raw = read_bytes(path)
    if path.suffix.lower() == ".jsonl" or raw.removeprefix(codecs.BOM_UTF8).lstrip()[:1] not in (b"{", b"["):
        return None
    data = parsed(raw, path)
    for module in allowed.values():
        if module.recognizes(data):
            log: Log = module.read(path, data)
            return log
    return None
