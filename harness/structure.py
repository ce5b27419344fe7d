"""Models whose modules differ from those that config.json describes: what `structure.json` beside it says is rebuilt.

Plain `transformers` cannot load such a directory; this is the one place that can.
"""

from pathlib import Path
from typing import Any


def pretrained(path: Path, **options: Any) -> Any:
    """`AutoModelForCausalLM.from_pretrained`, structure included."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(path, **options)
