"""How many bytes of keys and values the scorer may hold: `--kv-budget`, or a quarter of the memory that is free.

Held are those of the path that goes on, in every layer, and those of one pack, in the layer that is being computed.
"""

import os
import re
from pathlib import Path
from typing import Any

from weighin.harness.packing import Shapes
from weighin.results.errors import WeighinError
from weighin.results.render import quantity

NAME = "WEIGHIN_KV_BUDGET"
"""Of the variable that tells workers."""
SHARE = 4
UNITS = {"": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def read(text: str) -> int:
    """Bytes as a person writes them: `200000000`, `512MiB`. ValueError for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?(|KiB|MiB|GiB)", text.strip())
    count = int(float(found[1]) * UNITS[found[2]]) if found else 0
    if not count:
        raise ValueError(f"{text!r}: bytes, or a number of {', '.join(unit for unit in UNITS if unit)}")
    return count


def within(module: Any, longest: int, shapes: Shapes, sharers: int = 1) -> Shapes:
    """Packs as large as the budget allows, `shapes` at most, for each of some sharers with texts of `longest` tokens.

    WeighinError where not even the smallest pack fits beside the longest text.
    """
    allowed = _allowed(module)
    if allowed is None:
        return shapes
    layers, layer = _sizes(module)
    room = (allowed // sharers - longest * layers * layer) // layer // shapes.rung * shapes.rung
    if room < shapes.rung:
        least = _least(module, longest, shapes)
        raise WeighinError(
            f"a budget of {quantity(allowed, 'B')} for keys and values is too small: a text of {longest} tokens takes "
            f"{quantity(least, 'B')} (--kv-budget, default a quarter of the free memory)"
        )
    return shapes._replace(tokens=min(shapes.tokens, room))


def sharers(module: Any, longest: int, shapes: Shapes) -> int:
    """How many may have a text of `longest` tokens at a time; one, where the budget is too small for even that."""
    allowed = _allowed(module)
    return 2**30 if allowed is None else max(allowed // _least(module, longest, shapes), 1)


def _least(module: Any, longest: int, shapes: Shapes) -> int:
    layers, layer = _sizes(module)
    return (longest * layers + shapes.rung) * layer


def _sizes(module: Any) -> tuple[int, int]:
    """Layers, and the bytes that a token's keys and values take in one of them."""
    config = module.config.get_text_config()
    heads = int(config.num_attention_heads)
    size = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    groups = int(getattr(config, "num_key_value_heads", None) or heads)
    return int(config.num_hidden_layers), 2 * groups * size * module.dtype.itemsize


def _allowed(module: Any) -> int | None:
    """Bytes; None where this machine does not tell what is free."""
    if asked := os.environ.get(NAME):
        return int(asked)
    if module.device.type == "cuda":
        import torch

        return int(torch.cuda.mem_get_info(module.device)[0]) // SHARE
    path = Path("/proc/meminfo")
    for line in path.read_text().splitlines() if path.is_file() else []:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024 // SHARE
    return None
