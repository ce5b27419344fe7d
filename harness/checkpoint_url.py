"""Checkpoints at a URL that several machines reach: a directory (`file://`), an object store (`s3://`), whatever fsspec
knows. `WEIGHIN_CHECKPOINTS` names it; WEIGHIN_HOME is then the machine's own cache of it.

A checkpoint's files go below a name of their own, its manifest last: what has no manifest is not there, and two
machines that made the same checkpoint never mix their files. The manifest holds every file's hash, and what is read is
checked.
"""

import json
import os
import re
from pathlib import Path
from typing import Any
from uuid import uuid4

from weighin.harness.keys import file_digest
from weighin.results.errors import WeighinError

VARIABLE = "WEIGHIN_CHECKPOINTS"
MANIFEST = "weighin.json"
PLACE = re.compile(r'"[^"]*/checkpoints/([0-9a-f]{64})"')
"""A checkpoint of ours by its path on the machine that wrote it, as an adapter names its base."""


def url() -> str | None:
    """Where checkpoints are shared; None where they are this machine's alone."""
    return os.environ.get(VARIABLE, "").rstrip("/") or None


def manifest(key: str) -> dict[str, Any] | None:
    """What is said of a checkpoint there; None where it is not there, or nothing is shared."""
    where = url()
    if where is None:
        return None
    system, root = _system(where)
    try:
        text = system.cat_file(f"{root}/{key}/{MANIFEST}")
    except FileNotFoundError:
        return None
    except Exception as error:  # every backend has errors of its own
        raise _failed(where, error) from error
    found: dict[str, Any] = json.loads(text)
    return found


def push(folder: Path, key: str) -> None:
    """Share a finished checkpoint, unless it is there already or nothing is shared."""
    where = url()
    if where is None or manifest(key) is not None:
        return
    system, root = _system(where)
    beside = uuid4().hex
    files = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    made: dict[str, Any] = {"key": key}
    if (folder / MANIFEST).is_file():  # a base has none
        made = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    made["shared"] = {"below": beside, "files": {name: file_digest(folder / name) for name in files}}
    try:
        for name in files:
            target = f"{root}/{key}/{beside}/{name}"
            system.makedirs(target.rsplit("/", 1)[0], exist_ok=True)
            system.put_file(str(folder / name), target)
        draft = f"{root}/{key}/{beside}/{MANIFEST}"
        system.pipe_file(draft, json.dumps(made, indent=1, sort_keys=True).encode())
        system.mv(draft, f"{root}/{key}/{MANIFEST}")  # a rename, or a copy that appears whole
    except Exception as error:
        raise _failed(where, error) from error


def fetch(key: str, out: Path) -> list[str] | None:
    """A shared checkpoint's files in the empty directory `out`, each with the hash that its manifest names.

    Returns the keys of the checkpoints that they refer to by path, which are this machine's from now on; None where it
    is not there. Raises WeighinError where a file is missing or is another.
    """
    made = manifest(key)
    where = url()
    if made is None or where is None:
        return None
    system, root = _system(where)
    shared = made.pop("shared")
    for name, digest in shared["files"].items():
        target = out / name
        if not target.resolve().is_relative_to(out.resolve()):
            raise WeighinError(f"{where}/{key}: its manifest names {name!r}, which is outside of it")
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            system.get_file(f"{root}/{key}/{shared['below']}/{name}", str(target))
        except FileNotFoundError:
            raise WeighinError(
                f"{where}/{key}: {name} is missing; delete the checkpoint there, a run makes it"
            ) from None
        except Exception as error:
            raise _failed(where, error) from error
        if file_digest(target) != digest:
            raise WeighinError(
                f"{where}/{key}: {name} is not what was published (its hash differs); delete the checkpoint there, "
                "a run makes it again"
            )
    (out / MANIFEST).write_text(json.dumps(made, indent=1, sort_keys=True), encoding="utf-8")
    return _relocated(out)


def _relocated(folder: Path) -> list[str]:
    """Paths of other checkpoints in a checkpoint's small JSON files, as they are on this machine; their keys."""
    from weighin.harness.checkpoints import place

    found: list[str] = []
    for file in sorted(folder.rglob("*.json")):
        if file.stat().st_size < 1 << 16:
            text = file.read_text(encoding="utf-8")
            keys = PLACE.findall(text)
            if keys:
                file.write_text(PLACE.sub(lambda hit: json.dumps(str(place(hit[1]))), text), encoding="utf-8")
                found += keys
    return found


def _system(where: str) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs

        system, root = url_to_fs(where)
    except ImportError as error:
        raise WeighinError(f"{VARIABLE}={where}: {error}; pip install the package of that file system") from None
    except ValueError as error:
        raise WeighinError(f"{VARIABLE}={where}: {error}") from None
    return system, str(root).rstrip("/")


def _failed(where: str, error: Exception) -> WeighinError:
    said = next(iter(str(error).strip().splitlines()), "")
    return WeighinError(f"{VARIABLE}={where}: {type(error).__name__}: {said}")
