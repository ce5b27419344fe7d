"""How many bytes of tensors are alive at once during a piece of work, on any device, counted operation by operation."""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Alive:
    """Bytes of the tensors that operations made and nobody has let go of yet: now, and the most at once."""

    def __init__(self) -> None:
        self.now = self.peak = 0
        self._known: set[int] = set()

    def add(self, tensor: Any) -> None:
        """Count a tensor's storage once, until it is let go."""
        storage = tensor.untyped_storage()
        place, size = storage.data_ptr(), storage.nbytes()
        if not place or place in self._known:
            return
        self._known.add(place)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, place, size)

    def _gone(self, place: int, size: int) -> None:
        self._known.discard(place)
        self.now -= size


@contextmanager
def counted(held: Any = ()) -> Iterator[Alive]:
    """Within the block, count what operations allocate; the storages of the tensors `held` are there already.

    What an operation uses inside itself and frees again is not seen.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    alive = Alive()
    alive._known |= {tensor.untyped_storage().data_ptr() for tensor in held}

    class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            made = func(*args, **(kwargs or {}))
            for leaf in tree_leaves(made):
                if isinstance(leaf, torch.Tensor) and type(leaf) is torch.Tensor:
                    alive.add(leaf)
            return made

    with Watch():  # type: ignore[no-untyped-call]
        yield alive
