"""What the stages share that export a model for another runtime."""

import shutil
from pathlib import Path
from typing import Any

from weighin.adapters._hf import COMPANIONS
from weighin.harness import Outline, WeighinError, outline


def exportable(stage: str, parent: Outline) -> Outline:
    """The parent with its adapter gone. Raises WeighinError where it is not a dense model that config.json describes.

    What is exported is loaded by libraries of the export's own environment, which know of no adapter and no structure.
    """
    if parent.attached:
        raise WeighinError(
            f"the parent keeps its adapter ({parent.attached}) beside its weights, and {stage} exports one model. "
            "Merge the adapter where it is made"
        )
    return outline.plain(stage, parent)


def companions(source: Path, out: Path) -> None:
    """Tokenizer and generation settings, byte for byte, in place of what the library wrote of them."""
    for pattern in COMPANIONS:
        for file in out.glob(pattern):
            file.unlink()
        for file in source.glob(pattern):
            shutil.copyfile(file, out / file.name)


def tensors(ids: list[int]) -> dict[str, Any]:
    """Input tensors of one prompt, batch 1."""
    import torch

    row = torch.tensor([ids])
    return {"input_ids": row, "attention_mask": torch.ones_like(row)}
