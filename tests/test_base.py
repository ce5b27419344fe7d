"""A base model from a directory, the hub's cache or the package; what is dangerous or absent is refused in words."""

import json
import shutil
from pathlib import Path

import pytest

from weighin.harness.base import resolve
from weighin.harness.spec import Base
from weighin.results.errors import WeighinError


def test_a_local_directory(pico_dir: Path, tmp_path: Path) -> None:
    found = resolve(Base(model=str(pico_dir)), download=False)
    assert found is not None and found.path == pico_dir
    copy = shutil.copytree(pico_dir, tmp_path / "elsewhere")
    again = resolve(Base(model=str(copy)), download=False)
    assert again is not None and again.key == found.key, "a key is content, not place"
    (copy / "config.json").write_text((copy / "config.json").read_text() + " ")
    changed = resolve(Base(model=str(copy)), download=False)
    assert changed is not None and changed.key != found.key


def test_the_reference_models_take_the_same_path() -> None:
    found = resolve(Base(model="reference:base"), download=False)
    assert found is not None and (found.path / "model.safetensors").is_file()


def hub_cache(root: Path, model: Path, commit: str = "a" * 40) -> None:
    """The layout in which huggingface_hub keeps what it downloaded."""
    repo = root / "models--org--name"
    shutil.copytree(model, repo / "snapshots" / commit)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)


def test_a_hub_model_from_its_cache(pico_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    hub_cache(tmp_path, pico_dir)
    local = resolve(Base(model=str(pico_dir)), download=False)
    for revision in (None, "a" * 40):
        found = resolve(Base(model="org/name", revision=revision), download=False)
        assert found is not None and local is not None and found.key == local.key, "the same weights are the same model"


def test_a_hub_model_that_is_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assert resolve(Base(model="org/absent"), download=False) is None, "a plan downloads nothing"
    with pytest.raises(WeighinError, match=r"org/absent is no local directory .* could not be fetched from the hub"):
        resolve(Base(model="org/absent"), download=True)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("./no/such/place", "no directory ./no/such/place"),
        ("/no/such", "no directory /no/such"),
        ("gpt", "no directory gpt"),
        ("reference:bse", "no reference model 'bse'. Did you mean 'base'"),
    ],
)
def test_paths_and_names_that_are_not_there(model: str, message: str) -> None:
    with pytest.raises(WeighinError) as caught:
        resolve(Base(model=model), download=True)
    assert message in str(caught.value)


@pytest.fixture
def folder(pico_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pico_dir, tmp_path / "model"))


def test_pickled_weights_are_refused_unless_asked_for(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(WeighinError, match=r"pytorch_model.bin\) need pickle"):
        resolve(Base(model=str(folder)), download=False)
    assert resolve(Base(model=str(folder), allow=["pickle"]), download=False) is not None


def test_remote_code_is_refused_unless_asked_for(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModelForCausalLM": "mine.Model"}}))
    with pytest.raises(WeighinError, match="brings its own Python code"):
        resolve(Base(model=str(folder)), download=False)
    assert resolve(Base(model=str(folder), allow=["remote_code"]), download=False) is not None


def test_a_directory_that_is_no_model(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeighinError, match="no weights"):
        resolve(Base(model=str(folder)), download=False)
    (folder / "config.json").unlink()
    with pytest.raises(WeighinError, match=r"no config\.json"):
        resolve(Base(model=str(folder)), download=False)
    with pytest.raises(WeighinError, match="is a file"):
        resolve(Base(model=str(folder / "tokenizer.json")), download=False)
