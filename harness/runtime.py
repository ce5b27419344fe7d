"""What a stage gives whose checkpoint another runtime than PyTorch computes with. A contract; imports nothing heavy."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Weight:
    """One constant that a runtime computes with, as it keeps it once it is ready to compute."""

    name: str
    """Of the layer that it belongs to, as PyTorch calls it (`model.layers.0.mlp.up_proj`), where that is known."""
    dtype: str
    """As torch would spell it: `float32`, `int8`, `uint4`."""
    elements: int
    bytes: int
    value: Callable[[], Any] | None = None
    """The values it stands for, float32 array in PyTorch's shape, (out, in) for a linear layer; None: not told."""
    own: bool = True
    """False for what only serves others: scales, zero points."""


class Runtime(Protocol):
    """A checkpoint opened by the runtime that will serve it."""

    module: Any
    """Called with `input_ids` and `attention_mask` it gives `logits`, and it has `generate`, `config`, `device` and
    `dtype`, as a model of `transformers` does."""
    name: str

    def weights(self) -> Iterator[Weight]:
        """Every constant, shared ones once."""
        ...

    def kernel(self, ids: list[int]) -> str:
        """The kernel with the most time in matrix products over a prompt, as the runtime itself reports it."""
        ...

    def cache_bytes(self, ids: list[int]) -> int | None:
        """Bytes of the key-value cache after a prompt, batch 1; None where the runtime does not tell."""
        ...

    def settings(self) -> Mapping[str, Any]:
        """What decides how it computes, as the runtime reports it: precision of the arithmetic, of the cache."""
        ...


Opens = Callable[..., Runtime]
"""Opens a directory that its stage wrote: `opens(folder)`."""
