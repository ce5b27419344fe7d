"""A model without some of its neurons, head groups and blocks: its sizes, known beforehand, and its weights."""

import copy
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from weighin.harness import WeighinError
from weighin.harness.structure import blocks

if TYPE_CHECKING:
    import torch

PARTS = {"ffn": ("up_proj", "down_proj"), "heads": ("q_proj", "k_proj", "v_proj", "o_proj")}
"""The linear layers by which the module that a parameter cuts is known."""

DIVIDED = {"llama", "gemma2", "gemma3", "gemma3_text", "arcee", "cwm", "jais2", "vaultgemma", "eurobert"}
"""Model types whose config.json must have a number of heads that divides the hidden size, head_dim or not."""


class Cut(NamedTuple):
    """How much to drop: shares of the neurons and of the head groups, a number of blocks; and which."""

    ffn: float
    heads: float
    layers: int
    multiple: int = 8
    method: Literal["activation", "magnitude"] = "activation"
    depth: Literal["influence", "loss"] = "influence"


class Kept(NamedTuple):
    """What stays, in its old order: blocks by number, and for each of all blocks the neurons and head groups."""

    blocks: list[int]
    neurons: "list[torch.Tensor] | None"
    groups: "list[torch.Tensor] | None"


def smaller(config: Mapping[str, Any], cut: Cut) -> dict[str, Any]:
    """The sizes of config.json after the cut; those that the config does not know are left out.

    WeighinError where nothing is dropped or nothing would be left.
    """
    if not (cut.ffn or cut.heads or cut.layers):
        raise WeighinError("shrink: nothing to drop. Give at least one of ffn, heads, layers more than 0")
    found: dict[str, Any] = {}
    width, heads = config.get("intermediate_size"), config.get("num_attention_heads")
    if cut.ffn and width is not None:
        found["intermediate_size"] = _size("ffn", width, cut.ffn, cut.multiple)
    if cut.heads and heads is not None:
        groups = config.get("num_key_value_heads") or heads
        hidden = config.get("hidden_size") if config.get("model_type") in DIVIDED else None
        kept = _size("heads", groups, cut.heads, fits=lambda n: not hidden or hidden % (heads // groups * n) == 0)
        found |= {"num_key_value_heads": kept, "num_attention_heads": heads // groups * kept}
        # Left unsaid, it would be the hidden size by the number of heads, which is another one now.
        if config.get("head_dim") or config.get("hidden_size"):
            found["head_dim"] = config.get("head_dim") or config["hidden_size"] // heads
    if cut.layers and (count := config.get("num_hidden_layers")) is not None:
        if cut.layers >= count:
            raise WeighinError(
                f"shrink.layers: {cut.layers} of {count} blocks leave none. Allowed for this model: at most {count - 1}"
            )
        found["num_hidden_layers"] = count - cut.layers
        found |= per_layer(config, list(range(count - cut.layers)))
    return found


def per_layer(config: Mapping[str, Any], kept: list[int]) -> dict[str, Any]:
    """The config's lists that have an entry for each block (`layer_types` and the like), for the blocks kept."""
    count = config["num_hidden_layers"]
    lists = {n: v for n, v in config.items() if "layer" in n and isinstance(v, list) and len(v) == count}
    return {name: [value[block] for block in kept] for name, value in lists.items()}


def known(config: Any) -> dict[str, Any]:
    """A model's config, its sizes under the names they have for most architectures too."""
    names = ("num_hidden_layers", "num_attention_heads", "num_key_value_heads", "hidden_size", "intermediate_size")
    return {**config.to_dict(), **{name: getattr(config, name) for name in names if hasattr(config, name)}}


def _size(name: str, size: Any, share: float, multiple: int = 1, fits: Callable[[int], bool] = lambda _: True) -> int:
    """What is left of `size` without a share of it: the nearest allowed number."""
    if not isinstance(size, int):
        raise WeighinError(f"shrink.{name}: the blocks have unlike sizes ({size}), and only like ones can be cut")
    allowed = [n for n in range(multiple, size, multiple) if fits(n)]
    kept = min([0, *allowed, size], key=lambda n: (abs(n - size * (1 - share)), -n))
    if 0 < kept < size:
        return kept
    what = "all would be dropped" if kept == 0 else "nothing would be dropped"
    shares = [f"{1 - n / size:.4g}" for n in reversed(allowed)]
    those = f"{shares[0]} to {shares[-1]}" if len(shares) > 8 else ", ".join(shares) or "none"
    kind = f", kept in multiples of {multiple}" if multiple > 1 else ""
    raise WeighinError(f"shrink.{name}: {share} of {size}{kind}: {what}. Allowed for this model: {those}")


def rebuild(model: Any, cut: Cut, kept: Kept) -> Any:
    """The model without what is not kept: plain modules of the same architecture, for saving only."""
    import torch
    from huggingface_hub.errors import StrictDataclassError

    config, now = copy.deepcopy(model.config), known(model.config)
    for name, value in {**smaller(now, cut), **per_layer(now, kept.blocks)}.items():
        setattr(config, name, value)
    prefix, layers = blocks(model)
    state = {name: w for name, w in model.state_dict().items() if not name.startswith(prefix + ".")}
    for new, old in enumerate(kept.blocks):
        where = _where(model, layers[old], old, kept)
        for name, weight in layers[old].state_dict().items():
            dim, index = where.get(name, (0, None))
            state[f"{prefix}.{new}.{name}"] = weight if index is None else weight.index_select(dim, index)
    try:
        config.validate()
        with torch.device("meta"):
            child = type(model)(config)
        child.load_state_dict(state, strict=True, assign=True)
    except (RuntimeError, ValueError, StrictDataclassError) as error:
        last = str(error).splitlines()[-1].strip()
        raise WeighinError(f"shrink: {type(model).__name__} does not fit its own smaller config ({last})") from None
    child.tie_weights()
    return child


def _where(model: Any, layer: Any, number: int, kept: Kept) -> "dict[str, tuple[int, torch.Tensor]]":
    """For each weight of a block that is cut: along which dimension, and which places stay."""
    found: dict[str, tuple[int, torch.Tensor]] = {}

    def rows(path: str, index: "torch.Tensor") -> None:
        found.update({f"{path}.{kind}": (0, index) for kind in ("weight", "bias")})

    if kept.neurons is not None:
        path, ffn = part(layer, "ffn")
        for name in ("up_proj", "gate_proj") if hasattr(ffn, "gate_proj") else ("up_proj",):
            rows(f"{path}.{name}", kept.neurons[number])
        found[f"{path}.down_proj.weight"] = (1, kept.neurons[number])
    if kept.groups is not None:
        path, attention = part(layer, "heads")
        of_query = _places(kept.groups[number], attention.q_proj.out_features // model.config.num_key_value_heads)
        of_key = _places(kept.groups[number], attention.k_proj.out_features // model.config.num_key_value_heads)
        rows(f"{path}.q_proj", of_query)
        rows(f"{path}.k_proj", of_key)
        rows(f"{path}.v_proj", of_key)
        found[f"{path}.o_proj.weight"] = (1, of_query)
    return found


def _places(groups: "torch.Tensor", size: int) -> "torch.Tensor":
    """Places of whole groups of `size` neighbours."""
    import torch

    return (groups[:, None] * size + torch.arange(size)).flatten()


def part(layer: Any, parameter: str) -> tuple[str, Any]:
    """The one module in a block that a parameter cuts, with its path."""
    import torch

    names = PARTS[parameter]
    found = [
        (path, module)
        for path, module in layer.named_modules()
        if all(isinstance(getattr(module, name, None), torch.nn.Linear) for name in names)
    ]
    if len(found) != 1:
        raise WeighinError(
            f"shrink.{parameter}: {type(layer).__name__} has {len(found)} modules with {', '.join(names)}, and one is "
            f"needed. Allowed for this model: {parameter} 0"
        )
    return found[0]


def check_attention(model: Any, attention: Any) -> None:
    """Raises WeighinError where heads are not made as the cut takes them to be."""
    config = model.config
    sizes = [attention.q_proj.out_features, attention.k_proj.out_features, attention.v_proj.out_features]
    size = sizes[0] // config.num_attention_heads
    if sizes != [size * config.num_attention_heads] + 2 * [size * config.num_key_value_heads]:
        raise WeighinError(
            f"shrink.heads: {type(attention).__name__} has projections of {sizes}, which is not one key and one value "
            f"of a size for each of {config.num_key_value_heads} groups. Allowed for this model: heads 0"
        )
