"""Fixtures every test may use: a pico model made on the spot, and a clean place for checkpoints and the store."""

import os
import runpy
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# Nothing that is tested may need another machine: every connection to one fails, here and in what the tests start.
OFFLINE = str(Path(__file__).resolve().parent / "offline")
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [OFFLINE, os.environ.get("PYTHONPATH")]))
runpy.run_path(str(Path(OFFLINE) / "sitecustomize.py"))
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

settings.register_profile("weighin", deadline=None)  # a clock decides no test
settings.load_profile("weighin")

HOME = Path(os.environ.get("WEIGHIN_HOME", ".weighin")).absolute()
"""Where whoever runs the tests keeps managed environments; a test that needs one borrows it."""
SHARED_DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"

TEXT = [
    "The old lantern hangs by the green door of the mill.",
    "A keeper counts seven blue stones near the river.",
    "Where does the heron sleep? The heron sleeps on the roof.",
    "Nobody knows who painted the quiet boat red and white.",
    "0 1 2 3 4 5 6 7 8 9",
]


@pytest.fixture(autouse=True)
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the store or the checkpoints of whoever runs it."""
    monkeypatch.setenv("WEIGHIN_STORE", str(tmp_path / "weighin.duckdb"))
    monkeypatch.setenv("WEIGHIN_HOME", str(tmp_path / "home"))


def lend(name: str, home: Path) -> None:
    """Link a managed environment into a test's own WEIGHIN_HOME; skip the test where it is not set up."""
    from weighin.harness import environments

    found = environments.find(name)
    real = HOME / "environments" / found.folder.name
    if not (real / "weighin.json").is_file():
        pytest.skip(f"{found.missing} (looked in {HOME})")
    link = home / "environments" / real.name
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.exists():
        link.symlink_to(real)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real models and evaluation sets beside the repository."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"real data not found: {SHARED_DATA} does not exist (the rest of the tests need none)")
    return SHARED_DATA


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small text file, one document a line: calibration and training data of the tests."""
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("\n".join(TEXT * 8) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def pico_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A Llama of two layers with random weights and its own tokenizer, as a Hugging Face directory."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    out = tmp_path_factory.mktemp("pico")
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<s>", "</s>", "<pad>"]
    raw.train_from_iterator(
        TEXT, trainers.BpeTrainer(vocab_size=384, special_tokens=special, initial_alphabet=alphabet)
    )
    raw.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<s>", eos_token="</s>", pad_token="<pad>", model_max_length=256
    ).save_pretrained(out)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=raw.get_vocab_size(),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
        tie_word_embeddings=True,
        initializer_range=0.08,
    )
    LlamaForCausalLM(config).save_pretrained(out)
    yield out


@pytest.fixture(scope="session")
def half_dir(pico_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pico model in bfloat16 on disk."""
    import torch
    from transformers import AutoModelForCausalLM

    out = tmp_path_factory.mktemp("half")
    shutil.copytree(pico_dir, out, dirs_exist_ok=True)
    AutoModelForCausalLM.from_pretrained(pico_dir, dtype=torch.bfloat16).save_pretrained(out)
    return out


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Operations on a small model gain nothing from two threads, and lose much where both wait for a busy core."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory, text_file: Path) -> Callable[..., Path]:
    """Run a stage; the same one on the same parent with the same parameters only once."""
    from weighin.harness import Checkpoint

    made: dict[str, Path] = {}

    def run(stage: Any, parent: Path, again: int = 0, **params: Any) -> Path:
        params = {**({"data": str(text_file)} if stage.reads else {}), **params}
        name = f"{stage.call.__name__} {parent} {again} {sorted(params.items())}"
        if name not in made:
            made[name] = tmp_path_factory.mktemp(stage.call.__name__)
            stage(Checkpoint(parent, "key"), made[name], **params)
        return made[name]

    return run


@pytest.fixture
def test_plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The plugins of `tests/plugins.py`, installed for one test."""
    from tests.plugins import write_package

    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(write_package(folder)))
    return folder


@pytest.fixture(autouse=True)
def fresh_registry() -> Iterator[None]:
    """Plugins loaded by one test are not those of the next."""
    from weighin.harness import registry

    yield
    registry.load.cache_clear()
    for name in [name for name in sys.modules if name.startswith("tp_")]:
        del sys.modules[name]
