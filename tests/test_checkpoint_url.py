"""Checkpoints that machines share: whole or not there, checked when they are read; directories and object stores."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import free_port
from weighin.harness import checkpoint_url, checkpoints
from weighin.harness.plugin import Checkpoint
from weighin.results.errors import WeighinError

KEY, BASE = "a" * 64, "b" * 64


@pytest.fixture(params=["file", "memory", "s3"])
def shared(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Each kind of place, real; the object store is a server of its own on this machine."""
    if request.param == "s3":
        if not all(importlib.util.find_spec(name) for name in ("moto", "flask_cors", "s3fs")):
            pytest.skip("needs a server of objects: pip install '.[dev]'")
        yield from _object_store(monkeypatch)
        return
    where = f"file://{tmp_path / 'shared'}" if request.param == "file" else f"memory://{tmp_path.name}"
    monkeypatch.setenv(checkpoint_url.VARIABLE, where)
    yield where


def _object_store(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv(checkpoint_url.VARIABLE, "s3://weighin/checkpoints")
    import s3fs

    try:
        for _ in range(300):
            try:
                s3fs.S3FileSystem(skip_instance_cache=True).mkdir("weighin")
                break
            except Exception:
                time.sleep(0.2)
        s3fs.S3FileSystem.clear_instance_cache()
        yield "s3://weighin/checkpoints"
    finally:
        server.kill()
        server.wait()


def make(key: str = KEY, weights: bytes = b"weights" * 1000, **config: str) -> Checkpoint:
    with checkpoints.building(key) as folder:
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "deep").mkdir()
        (folder / "deep" / "model.safetensors").write_bytes(weights)
        return checkpoints.publish(folder, key, {"parent": None})


def another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WEIGHIN_HOME", str(tmp_path / "another"))
    return tmp_path / "another"


def test_a_base_that_nobody_made_is_shared_too(shared: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (base / "model.safetensors").write_bytes(b"weights")
    checkpoint_url.push(base, BASE)
    assert [path.name for path in base.iterdir()] == ["model.safetensors"], "it is not ours to write to"
    (base / "model.safetensors").unlink()
    base.rmdir()
    home = another_machine(tmp_path, monkeypatch)
    found = checkpoints.present(Checkpoint(base, BASE))
    assert found.path.is_relative_to(home) and (found.path / "model.safetensors").read_bytes() == b"weights"


def test_what_one_machine_made_another_has(shared: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make()
    home = another_machine(tmp_path, monkeypatch)
    assert checkpoints.find(KEY) is None and checkpoints.known(KEY)["parent"] is None
    found = checkpoints.present(Checkpoint(checkpoints.place(KEY), KEY))
    assert found.path.is_relative_to(home)
    assert (found.path / "deep" / "model.safetensors").read_bytes() == b"weights" * 1000
    assert checkpoints.manifest(found) == {"key": KEY, "parent": None}
    assert checkpoints.known("c" * 64) == {}
    nowhere = Checkpoint(checkpoints.place("c" * 64), "c" * 64)
    assert checkpoints.present(nowhere) == nowhere and not nowhere.path.exists()


def test_what_was_altered_there_is_refused(shared: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make()
    system, root = checkpoint_url._system(shared)
    below = checkpoint_url.manifest(KEY)
    assert below is not None
    weights = f"{root}/{KEY}/{below['shared']['below']}/deep/model.safetensors"
    system.pipe_file(weights, b"Weights" * 1000)
    another_machine(tmp_path, monkeypatch)
    with pytest.raises(WeighinError, match=r"model.safetensors is not what was published"):
        checkpoints.present(Checkpoint(checkpoints.place(KEY), KEY))
    system.rm(weights)
    with pytest.raises(WeighinError, match=r"model.safetensors is missing"):
        checkpoints.present(Checkpoint(checkpoints.place(KEY), KEY))
    assert checkpoints.find(KEY) is None, "nothing of it may look finished"


def test_without_its_manifest_it_is_not_there(shared: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever ended a push before its last step: the next machine makes it, and shares it whole."""
    make()
    system, root = checkpoint_url._system(shared)
    system.rm(f"{root}/{KEY}/{checkpoint_url.MANIFEST}")
    another_machine(tmp_path, monkeypatch)
    assert checkpoints.known(KEY) == {}
    make(weights=b"other")
    there = checkpoint_url.manifest(KEY)
    assert there is not None and there["shared"]["files"].keys() == {"config.json", "deep/model.safetensors"}


def test_paths_of_other_checkpoints_are_those_of_the_machine(
    shared: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = make(BASE)
    make(KEY, base_model_name_or_path=str(base.path))
    shutil.rmtree(checkpoints.home())
    home = another_machine(tmp_path, monkeypatch)
    found = checkpoints.present(Checkpoint(checkpoints.place(KEY), KEY))
    named = Path(json.loads((found.path / "config.json").read_text())["base_model_name_or_path"])
    assert named == checkpoints.place(BASE) and named.is_relative_to(home)
    assert (named / "deep" / "model.safetensors").is_file()


def test_a_manifest_cannot_write_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(checkpoint_url.VARIABLE, f"file://{tmp_path / 'shared'}")
    make()
    path = tmp_path / "shared" / KEY / checkpoint_url.MANIFEST
    made = json.loads(path.read_text())
    made["shared"]["files"] = {"../../evil": "0" * 64}
    path.write_text(json.dumps(made))
    another_machine(tmp_path, monkeypatch)
    with pytest.raises(WeighinError, match="outside of it"):
        checkpoints.present(Checkpoint(checkpoints.place(KEY), KEY))


def test_a_killed_push_leaves_nothing_that_looks_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(checkpoint_url.VARIABLE, f"file://{tmp_path / 'shared'}")
    code = """
import os, signal, sys
from pathlib import Path
from fsspec.implementations.local import LocalFileSystem
from weighin.harness import checkpoints
LocalFileSystem.mv = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)  # all is there but the manifest's name
with checkpoints.building(sys.argv[1]) as folder:
    (folder / "model.safetensors").write_bytes(b"w")
    checkpoints.publish(folder, sys.argv[1], {})
"""
    assert subprocess.run([sys.executable, "-c", code, KEY], env=dict(os.environ)).returncode == -9
    assert list((tmp_path / "shared" / KEY).rglob("*.safetensors"))
    another_machine(tmp_path, monkeypatch)
    assert checkpoints.known(KEY) == {}


def test_a_wrong_url_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(checkpoint_url.VARIABLE, "nosuch://place")
    with pytest.raises(WeighinError, match=r"WEIGHIN_CHECKPOINTS=nosuch://place: Protocol not known"):
        checkpoints.known(KEY)
