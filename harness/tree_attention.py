"""Attention within a pack of a prefix tree, put in the place of a transformers model's own.

Everything else in such a model treats tokens one by one, so a pack goes through it as one row of unrelated tokens. Only
attention has to know who stands before whom: here each chunk of queries meets the keys of its own path.
"""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from weighin.harness.packing import Group, Pack

NAME = "weighin_tree"
"""What it is called among transformers' attention implementations."""
UNKNOWN = ("softcap", "s_aux", "sinks", "position_bias", "output_attentions")
"""What some architectures ask of attention and this one does not do."""


class UnknownAttention(Exception):
    """An architecture asks for something that attention by tree does not do."""


@dataclass
class Walk:
    """A walk over the packs of one tree: keys and values of the path that goes on, by attention layer."""

    chunk: int
    device: Any
    kept: dict[int, tuple[Any, Any]] = field(default_factory=dict)
    """By the order in which layers are called: keys, values (path, heads, head size)."""
    masks: dict[tuple[int, int, int, Any], Any] = field(default_factory=dict)
    pack: "Placed | None" = None
    calls: int = 0
    computed: int = 0
    """Tokens that went through the model, filling included."""

    def enter(self, pack: Pack) -> None:
        """Make a pack the one that is computed now."""
        self.pack, self.calls = Placed(pack, self.device), 0
        self.computed += len(pack.tokens)

    def mask(self, number: int, folds: int, window: int, dtype: Any) -> Any:
        """What is added to scores (folds · chunk, keys): -inf for what is behind a query or out of its window."""
        import torch

        key = (number, folds, window, dtype)
        if key not in self.masks:
            query = torch.arange(number * self.chunk, (number + 1) * self.chunk, device=self.device)[:, None]
            other = torch.arange((number + 1) * self.chunk, device=self.device)[None]
            seen = (other <= query) & (other > query - window)
            found = torch.zeros(seen.shape, dtype=dtype, device=self.device).masked_fill_(~seen, float("-inf"))
            self.masks[key] = found.repeat(folds, 1)
        return self.masks[key]


class Placed:
    """A pack whose indices are on the device."""

    def __init__(self, pack: Pack, device: Any) -> None:
        import torch

        def there(values: Any) -> Any:
            return torch.from_numpy(values).to(device)

        self.tokens, self.depths = there(pack.tokens)[None], there(pack.depths)[None]
        self.groups = [
            (group, there(group.queries.reshape(-1)), there(group.keys.reshape(-1))) for group in pack.groups
        ]
        self.back, self.carry = there(pack.back), there(pack.carry)


_walk: ContextVar[Walk] = ContextVar("walk")
_lock = threading.Lock()
_inside: Counter[int] = Counter()
_before: dict[int, dict[int, str]] = {}


@contextmanager
def attending(module: Any, walk: Walk) -> Iterator[None]:
    """Within the block, `module` attends by the tree that is walked; several threads may be within it."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, _attend)
    configs = {id(c): c for c in (getattr(part, "config", None) for part in module.modules()) if c is not None}
    token = _walk.set(walk)
    with _lock:
        _inside[id(module)] += 1
        if _inside[id(module)] == 1:
            _before[id(module)] = {key: config._attn_implementation for key, config in configs.items()}
            for config in configs.values():
                config._attn_implementation = NAME
    try:
        yield
    finally:
        _walk.reset(token)
        with _lock:
            _inside[id(module)] -= 1
            if not _inside[id(module)]:
                for key, name in _before.pop(id(module)).items():
                    configs[key]._attn_implementation = name


def _attend(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, scaling: float | None = None, **asked: Any
) -> tuple[Any, None]:
    """transformers' contract: query (1, heads, tokens, size), key and value likewise -> (1, tokens, heads, size)."""
    import torch

    strange = [name for name in UNKNOWN if asked.get(name) is not None and asked[name] is not False]
    if strange or attention_mask is not None or len(query) != 1:
        raise UnknownAttention(f"its attention asks for {', '.join(strange) or 'a mask of its own'}")
    walk = _walk.get()
    pack, layer = walk.pack, walk.calls
    assert pack is not None
    walk.calls += 1
    rows = query[0].transpose(0, 1)  # (tokens, heads, size)
    keys, values = key[0].transpose(0, 1), value[0].transpose(0, 1)
    if layer in walk.kept:
        held, held_values = walk.kept[layer]
        keys, values = torch.cat([held, keys]), torch.cat([held_values, values])
    window = asked.get("sliding_window") or 2**30
    found = [
        _chunks(walk, group, rows.index_select(0, queries), (keys.index_select(0, at), values.index_select(0, at)),
                (scaling, window))
        for group, queries, at in pack.groups
    ]  # fmt: skip
    walk.kept[layer] = (keys.index_select(0, pack.carry), values.index_select(0, pack.carry))
    return torch.cat(found).index_select(0, pack.back)[None], None


def _chunks(walk: Walk, group: Group, rows: Any, store: tuple[Any, Any], how: tuple[float | None, int]) -> Any:
    """Attention of one group: rows (chunks · chunk, heads, size) -> (chunks · chunk, heads, size of values).

    Query heads that share a head of keys are folded into rows, so that no key is copied for them.
    """
    from torch.nn.functional import scaled_dot_product_attention

    count, depth = group.keys.shape
    heads, size = rows.shape[1:]
    sharers = store[0].shape[1]
    folds, chunk = heads // sharers, walk.chunk
    query = rows.view(count, chunk, sharers, folds, size).permute(0, 2, 3, 1, 4)
    query = query.reshape(count, sharers, folds * chunk, size)
    key, value = (part.view(count, depth, sharers, -1).transpose(1, 2) for part in store)
    mask = walk.mask(group.number, folds, how[1], rows.dtype)
    found = scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=how[0])
    found = found.view(count, sharers, folds, chunk, -1).permute(0, 3, 1, 2, 4)
    return found.reshape(count * chunk, heads, -1)
