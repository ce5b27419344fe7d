"""What transformers 5 writes and an older release in a managed environment would read otherwise, without a word.

The class that it names for a tokenizer is not known there, and rope parameters would be taken for the defaults.
"""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from weighin.results.errors import WeighinError

NEW = "TokenizersBackend"


def tokenizer(folder: Path, *, remote: bool = False) -> Any:
    """The tokenizer of a directory."""
    import transformers

    named = _json(folder / "tokenizer_config.json").get("tokenizer_class")
    if named == NEW and not hasattr(transformers, NEW):
        return transformers.PreTrainedTokenizerFast.from_pretrained(str(folder))
    return transformers.AutoTokenizer.from_pretrained(str(folder), trust_remote_code=remote)


def configured(folder: Path) -> Any:
    """The configuration of a directory as this release understands it; None where it reads it as it stands.

    Raises WeighinError for rope parameters that it has no words for.
    """
    import transformers

    rope = _json(folder / "config.json").get("rope_parameters")
    if rope is None or int(transformers.__version__.split(".")[0]) >= 5:
        return None
    config = transformers.AutoConfig.from_pretrained(str(folder))
    if not isinstance(rope.get("rope_theta"), int | float):
        raise WeighinError(f"{folder}: rope parameters that differ by layer are not read by {transformers.__version__}")
    config.rope_theta = rope["rope_theta"]
    rest = {name: value for name, value in rope.items() if name not in ("rope_theta", "partial_rotary_factor")}
    config.rope_scaling = rest if rest.get("rope_type", "default") != "default" else None
    if "partial_rotary_factor" in rope:
        config.partial_rotary_factor = rope["partial_rotary_factor"]
    return config


@contextmanager
def readable(folder: Path) -> Iterator[Path]:
    """A directory that this release reads as it is meant, for libraries that load it by themselves: `folder`, or its
    files again, beside a configuration in this release's words, for as long as the block runs.
    """
    config = configured(folder)
    if config is None:
        yield folder
        return
    with tempfile.TemporaryDirectory() as name:
        beside = Path(name)
        for file in folder.iterdir():
            (beside / file.name).symlink_to(file.resolve())
        (beside / "config.json").unlink()
        config.save_pretrained(beside)
        yield beside


def _json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return content
