"""INT8: weights of 8 bits with one scale per output row, activations as they were.

Library: torchao (`Int8WeightOnlyConfig`) through transformers' `TorchAoConfig`.
Paper: Dettmers, Lewis, Belkada, Zettlemoyer, "LLM.int8(): 8-bit Matrix Multiplication for Transformers at Scale",
arXiv 2208.07339 (its row-wise absolute-maximum scales; torchao splits off no outliers).

Costs: seconds, and no data. Buys: half the memory of 16-bit linear layers, on disk and at run time. On a CPU in eager
mode decoding is slower than in 16 bits, because every use of a layer dequantises it; `torch.compile` evens that out.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from weighin.adapters._hf import dense, linears, load, save
from weighin.harness import Checkpoint, Outline, WeighinError, outline, stage


def _foresee(parent: Outline, params: Mapping[str, Any]) -> Outline:
    return outline.dense("int8", parent).but(packed="torchao")


@stage(needs=("torchao", "transformers", "torch"), foresee=_foresee)
def int8(parent: Checkpoint, out: Path) -> None:
    """Round every linear layer but the head to int8; they stay int8 in memory."""
    with dense(parent, out, "int8") as source:
        from torchao.quantization import Int8WeightOnlyConfig
        from transformers import TorchAoConfig

        model = load(source, quantization_config=TorchAoConfig(Int8WeightOnlyConfig()))
        linears(model)  # raises where there is nothing that could have been quantised
        save(model, out, source)
        for file in out.glob("*.safetensors"):
            _sort_metadata(file)


def _sort_metadata(file: Path) -> None:
    """Put the header's metadata in order: it is written from a hash map, so that equal weights make unequal files."""
    with file.open("r+b") as handle:
        size = int.from_bytes(handle.read(8), "little")
        header = json.loads(handle.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) > size:  # the tensors begin right behind
            raise WeighinError(f"{file}: the header would grow from {size} to {len(text)} bytes")
        handle.seek(8)
        handle.write(text.ljust(size))
