"""Load a parent and save a child: Hugging Face directories, safetensors only, no network, no remote code."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weighin.harness import Checkpoint, WeighinError, outline, structure
from weighin.harness.outline import ADAPTER
from weighin.harness.structure import pretrained

if TYPE_CHECKING:
    import torch

COMPANIONS = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "chat_template*",
    "generation_config.json",
)
"""Files that go along with the weights, taken over byte for byte."""


@contextmanager
def dense(parent: Checkpoint, out: Path, stage: str) -> Iterator[Path]:
    """Directory of the parent's dense weights, for as long as the block runs.

    Raises WeighinError if they are already packed. A LoRA adapter kept beside its base is merged first (in a folder
    of its own, which goes when the block ends): a stage that rewrites weights must see the ones that really act.
    """
    outline.dense(stage, outline.read(parent.path))
    if not is_adapter(parent.path):
        yield parent.path
        return
    with tempfile.TemporaryDirectory(dir=out, prefix=".merged-") as folder:
        merged = Path(folder)
        save(_merged(parent.path), merged, parent.path)
        yield merged


def is_adapter(path: Path) -> bool:
    """Whether the directory holds an adapter whose base lies elsewhere."""
    return (path / ADAPTER).is_file() and not (path / "config.json").is_file()


def load(path: Path, **options: Any) -> Any:
    """The causal language model of a directory, in its own dtype unless `options` say otherwise."""
    safe = {"local_files_only": True, "trust_remote_code": False, "use_safetensors": True}
    return pretrained(path, **{"dtype": "auto", **safe, **options}).eval()


def load_float32(path: Path) -> tuple[Any, "torch.dtype"]:
    """The model in float32, to compute with, and the dtype it had, to go back to.

    Arithmetic in 16 bits is several times slower than float32 on most CPUs, and a change summed in float32 is rounded
    only once.
    """
    import torch

    model = load(path)
    dtype = model.dtype
    return model.to(torch.float32), dtype


def load_tokenizer(path: Path) -> Any:
    """The tokenizer of a directory."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)


def fit(model: Any, max_length: int) -> int:
    """`max_length`, or the model's window where that is shorter, tokens."""
    window = getattr(model.config, "max_position_embeddings", None)
    return min(max_length, window) if isinstance(window, int) else max_length


def save(model: Any, out: Path, source: Path) -> None:
    """Write `model` to `out`, with its structure, and the tokenizer and the generation settings of `source`."""
    # Generation settings are copied, not written anew: many a published file fails the check that writing makes.
    if getattr(model, "generation_config", None) is not None:
        model.generation_config = type(model.generation_config)()
    model.save_pretrained(out)
    (out / "generation_config.json").unlink(missing_ok=True)
    structure.write(out, structure.of(model))
    copy_companions(source, out)


def copy_companions(source: Path, out: Path) -> None:
    """Copy tokenizer and generation settings."""
    for pattern in COMPANIONS:
        for file in sorted(source.glob(pattern)):
            if file.is_file():
                shutil.copyfile(file, out / file.name)


def layers(model: Any) -> dict[str, Any]:
    """What multiplies by a matrix, GPT-2's transposed layers included, by name; without the head, whose weights the
    embedding often shares."""
    import torch
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    return {n: m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear | Conv1D) and m is not head}


def linears(model: Any) -> dict[str, "torch.nn.Linear"]:
    """The linear layers among them. Raises WeighinError where there is none."""
    import torch

    found = {name: layer for name, layer in layers(model).items() if isinstance(layer, torch.nn.Linear)}
    if not found:
        raise WeighinError(f"{type(model).__name__} has no torch.nn.Linear layer but its head: nothing to compress")
    return found


def head_names(model: Any) -> list[str]:
    """Names of the output head, as libraries want them to leave it alone."""
    head = model.get_output_embeddings()
    return [name for name, module in model.named_modules() if module is head and head is not None]


def _merged(path: Path) -> Any:
    from peft import PeftModel

    config = json.loads((path / ADAPTER).read_text(encoding="utf-8"))
    base, dtype = load_float32(Path(config["base_model_name_or_path"]))
    return PeftModel.from_pretrained(base, path, local_files_only=True).merge_and_unload().to(dtype)
