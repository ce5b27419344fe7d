"""Checkpoints on disk, by key. One is built beside its home and renamed into place: it appears whole or not at all."""

import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from weighin.harness import checkpoint_url
from weighin.harness.outline import ADAPTER, SERVING
from weighin.harness.plugin import Checkpoint
from weighin.results.errors import WeighinError

MANIFEST = "weighin.json"
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".npz", ".gguf", ".onnx", ".onnx_data")


def home() -> Path:
    """Where checkpoints and logs are kept: WEIGHIN_HOME, or `.weighin` in the working directory."""
    return Path(os.environ.get("WEIGHIN_HOME", ".weighin")).absolute()


def place(key: str) -> Path:
    """The directory of the checkpoint with this key, whether it exists or not."""
    return home() / "checkpoints" / key


def find(key: str) -> Checkpoint | None:
    """The finished checkpoint with this key; None when it has not been made (or has been deleted)."""
    folder = place(key)
    return Checkpoint(folder, key) if (folder / MANIFEST).is_file() else None


def known(key: str) -> dict[str, Any]:
    """How a checkpoint was made, whether it is on this machine or at the URL that machines share; empty where it is
    neither here nor there.
    """
    return manifest(Checkpoint(place(key), key)) or checkpoint_url.manifest(key) or {}


def present(checkpoint: Checkpoint) -> Checkpoint:
    """A checkpoint on this machine: where it says, in this machine's own home, or fetched from the shared URL.

    One that is nowhere comes back as it was: whoever reads it says so. Raises WeighinError for one that was altered.
    """
    if (checkpoint.path / MANIFEST).is_file() or (
        checkpoint.path.is_dir() and checkpoint.path != place(checkpoint.key)
    ):
        return checkpoint
    found = find(checkpoint.key)
    if found is None and checkpoint_url.url() is not None:
        with building(checkpoint.key) as folder:
            others = checkpoint_url.fetch(checkpoint.key, folder)
            if others is not None:
                found = _appear(folder, checkpoint.key)
                for key in others:
                    present(Checkpoint(place(key), key))
    return found or checkpoint


def manifest(checkpoint: Checkpoint) -> dict[str, Any]:
    """How a checkpoint was made; empty for a base, which was not made here."""
    path = checkpoint.path / MANIFEST
    if not path.is_file():
        return {}
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


@contextmanager
def building(key: str) -> Iterator[Path]:
    """An empty directory to build the checkpoint `key` in; removed unless `publish` moved it into place."""
    sweep()
    folder = place(key).parent / f".making-{os.getpid()}-{uuid4().hex[:8]}"
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(folder: Path, key: str, made: Mapping[str, Any]) -> Checkpoint:
    """Write the manifest last, flush, and rename: from here on the checkpoint exists and never changes."""
    path = folder / MANIFEST
    path.write_text(json.dumps({"key": key, **made}, indent=1, sort_keys=True), encoding="utf-8")
    found = _appear(folder, key)
    checkpoint_url.push(found.path, key)
    return found


def _appear(folder: Path, key: str) -> Checkpoint:
    for file in folder.rglob("*"):
        if file.is_file():
            _flush(file)
    _flush(folder)
    try:
        folder.rename(place(key))
    except OSError:
        if find(key) is None:  # otherwise somebody else made the same checkpoint first: equal keys, equal work
            raise
    return Checkpoint(place(key), key)


def link(source: Path, out: Path) -> None:
    """The files of a checkpoint again in `out`, without copying where that is safe.

    One of ours never changes, so a hard link will do; any other directory may be written to tomorrow, and is copied.
    """
    ours = source.is_relative_to(home())
    for file in sorted(p for p in source.rglob("*") if p.is_file() and p.name not in (MANIFEST, SERVING)):
        target = out / file.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            if not ours:
                raise OSError
            os.link(file.resolve(), target)
        except OSError:  # another file system, or one without links
            shutil.copyfile(file, target)


def sweep() -> None:
    """Remove what builds that were killed left behind; those of living processes stay."""
    for folder in (home() / "checkpoints").glob(".making-*"):
        pid = folder.name.split("-")[1]
        old = time.time() - folder.stat().st_mtime > 7 * 86400
        if old or not Path(f"/proc/{pid}").exists():
            shutil.rmtree(folder, ignore_errors=True)


def weight_files(folder: Path) -> list[Path]:
    """The files in a checkpoint that hold weights."""
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix in WEIGHTS)


def disk_bytes(folder: Path) -> int:
    """Bytes of the weight files; a kept adapter counts with the base that it needs."""
    own = sum(path.stat().st_size for path in weight_files(folder))
    named = (_json(adapter).get("base_model_name_or_path") or "" for adapter in folder.rglob(ADAPTER))
    return own + sum(disk_bytes(Path(base)) for base in named if Path(base).is_dir())


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def refuse_unsafe(folder: Path, allow: list[str]) -> None:
    """Raise WeighinError where loading needs pickle or code that came with the model, unless `allow` names it."""
    files = {path.name for path in folder.iterdir()}
    if "config.json" not in files and "adapter_config.json" not in files:
        raise WeighinError(f"{folder}: no config.json; a model directory holds config.json, weights and a tokenizer")
    safe = any(name.endswith(".safetensors") for name in files)
    pickled = sorted(n for n in files if n.endswith((".bin", ".pt", ".pth")) and "training_args" not in n)
    if not safe and not pickled:
        raise WeighinError(f"{folder}: no weights; expected *.safetensors")
    if not safe and "pickle" not in allow:
        raise WeighinError(
            f"{folder}: the weights ({pickled[0]}) need pickle, which can run any code when it is read. Convert them "
            "to safetensors, or allow it by name: base: {model: …, allow: [pickle]}"
        )
    config = folder / "config.json"
    if config.is_file() and "remote_code" not in allow and "auto_map" in _json(config):
        raise WeighinError(
            f"{folder}: the model brings its own Python code (auto_map in config.json). Read it, then allow it by "
            "name: base: {model: …, allow: [remote_code]}"
        )


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeighinError(f"{path}: is not JSON: {error}") from None
    return content if isinstance(content, dict) else {}
