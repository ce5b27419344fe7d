"""Models whose modules differ from those that config.json describes: what `structure.json` beside it says is rebuilt.

    {"factors": {"model.layers.0.mlp.up_proj": 64}}   that linear layer is two: inputs to 64 numbers to outputs
    {"shared": [0, 0, 2, 2]}                          block i computes with the weights of block shared[i]

Plain `transformers` cannot load such a directory; this is the one place that can. Imports nothing heavy.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weighin.harness import older, outline
from weighin.harness.outline import ADAPTER, STRUCTURE
from weighin.harness.soft_prompt import attach
from weighin.results.errors import WeighinError

if TYPE_CHECKING:
    import torch

CARRIED = "weighin_structure"
"""The attribute in which a model carries its structure to where it is saved."""


@dataclass(frozen=True)
class Structure:
    """How a model's modules differ from its architecture's. Empty: not at all."""

    factors: Mapping[str, int] = field(default_factory=dict)
    """Rank of each linear layer that is kept as a product of two, by the layer's name."""
    shared: tuple[int, ...] = ()
    """For each block, the number of the block whose weights it computes with: its own, or that of an earlier one."""

    def __bool__(self) -> bool:
        return bool(self.factors or self.shared)


def pretrained(path: Path, **options: Any) -> Any:
    """`AutoModelForCausalLM.from_pretrained`, structure included.

    WeighinError where the architecture cannot take the structure on.
    """
    from transformers import AutoModelForCausalLM

    folder = _base(path)
    if outline.read(path).attached == "prompt_tuning":
        return attach(pretrained(folder, **options), path)
    if (config := older.configured(folder)) is not None:
        options["config"] = config
    structure = read(folder)
    if folder != path and outline.read(folder).packed == "compressed-tensors":
        # Otherwise unpacked at the first forward: too late for an adapter, which asks each layer for its weight.
        from transformers import CompressedTensorsConfig

        options.setdefault("quantization_config", CompressedTensorsConfig(dequantize=True))
    if not structure:
        return AutoModelForCausalLM.from_pretrained(path, **options)
    model = _structured(_architecture(folder), structure).from_pretrained(folder, **options)
    _check(model, structure, folder)
    if folder != path:
        model.load_adapter(str(path))
    return model


def read(path: Path) -> Structure:
    """The structure of a directory, an empty one where it has no `structure.json`; WeighinError if that is no good."""
    file = path / STRUCTURE
    if not file.is_file():
        return Structure()
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        factors = {str(name): int(rank) for name, rank in found.pop("factors", {}).items()}
        structure = Structure(factors, tuple(int(block) for block in found.pop("shared", [])))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise WeighinError(f"{file}: cannot be read ({error})") from None
    if found:
        raise WeighinError(f"{file}: unknown {', '.join(map(repr, found))}. Allowed: 'factors', 'shared'")
    return structure


def write(out: Path, structure: Structure) -> None:
    """Put `structure.json` into a directory; nothing for an empty structure."""
    content = {"factors": dict(structure.factors), "shared": list(structure.shared)}
    if structure:
        text = json.dumps({name: value for name, value in content.items() if value}, indent=1)
        (out / STRUCTURE).write_text(text + "\n", encoding="utf-8")


def of(model: Any) -> Structure:
    """The structure that a model in memory carries."""
    found = getattr(model, CARRIED, None)
    return found if isinstance(found, Structure) else Structure()


def apply(model: Any, structure: Structure) -> Any:
    """Give a model in memory this structure, in place, and return it.

    Factorised layers are new ones with weights yet to be set. A shared block takes over the weights of the block it
    shares with and keeps its own place in the cache; its names are gone from the model's state. WeighinError where
    the modules do not allow it.
    """
    import torch

    if structure.shared:
        _check_shared(model, structure.shared)
    for name, rank in structure.factors.items():
        try:
            layer = model.get_submodule(name)
        except AttributeError:
            raise WeighinError(f"{STRUCTURE}: {type(model).__name__} has no module {name}") from None
        if not isinstance(layer, torch.nn.Linear):
            raise WeighinError(f"{STRUCTURE}: {name} is a {type(layer).__name__}, and only a Linear can be factorised")
        where = {"device": layer.weight.device, "dtype": layer.weight.dtype}
        shape = (layer.in_features, layer.out_features, rank)
        model.set_submodule(name, low_rank()(*shape, bias=layer.bias is not None, **where))
    setattr(model, CARRIED, structure)
    if structure.shared:
        _share(model)
        layers: Any = blocks(model)[1]
        layers.register_state_dict_post_hook(partial(_own, structure.shared))
    return model


def blocks(model: Any) -> tuple[str, "torch.nn.ModuleList"]:
    """The name and the list of a model's blocks (decoder layers); WeighinError where it has no such list."""
    import torch

    count = getattr(model.config, "num_hidden_layers", None)
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == count:
            return name, module
    raise WeighinError(f"{type(model).__name__} has no list of num_hidden_layers ({count}) blocks")


@cache
def low_rank() -> "type[torch.nn.Module]":
    """The class `LowRank(in_features, out_features, rank, bias, ...)`: a linear layer kept as a product of two.

    y = up(down(x)), with `down` (rank, in_features) and `up` (out_features, rank); the bias is that of `up`.
    """
    import torch

    class LowRank(torch.nn.Module):
        """y = up(down(x)), up (out_features, rank), down (rank, in_features)."""

        def __init__(self, in_features: int, out_features: int, rank: int, bias: bool = False, **where: Any) -> None:
            super().__init__()
            self.in_features, self.out_features, self.rank = in_features, out_features, rank
            self.down = torch.nn.Linear(in_features, rank, bias=False, **where)
            self.up = torch.nn.Linear(rank, out_features, bias=bias, **where)

        @property
        def bias(self) -> Any:
            """The bias of the whole, as a plain linear layer has it."""
            return self.up.bias

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """(..., in_features) to (..., out_features)."""
            result: torch.Tensor = self.up(self.down(x))
            return result

    return LowRank


def _base(path: Path) -> Path:
    """The directory that holds the modules: the base of an adapter that is kept beside it, or `path` itself."""
    adapter = path / ADAPTER
    if (path / "config.json").is_file() or not adapter.is_file():
        return path
    return Path(str(json.loads(adapter.read_text(encoding="utf-8")).get("base_model_name_or_path")))


def _architecture(folder: Path) -> Any:
    """The class of the model that config.json names, from `transformers` itself."""
    import transformers

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    name = next(iter(config.get("architectures") or []), "")
    if not hasattr(transformers, name):
        raise WeighinError(f"{folder}: {STRUCTURE} needs an architecture of transformers' own (got {name or 'none'})")
    return getattr(transformers, name)


def _structured(kind: Any, structure: Structure) -> Any:
    """A subclass of `kind` with the structure, under the same name, so that config.json goes on naming `kind`."""

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        kind.__init__(self, *args, **kwargs)
        apply(self, structure)

    def tie_weights(self: Any, *args: Any, **kwargs: Any) -> None:
        """Also the last step of loading: quantisers have put new modules in the place of those that were shared."""
        kind.tie_weights(self, *args, **kwargs)
        _share(self)

    own = {"__init__": __init__, "tie_weights": tie_weights, "__doc__": kind.__doc__}
    return type(kind.__name__, (kind,), {**own, "__module__": kind.__module__, "__qualname__": kind.__qualname__})


def _check(model: Any, structure: Structure, folder: Path) -> None:
    """That loading went as planned: when the library calls the methods above is not a promise of its own."""
    stray = [name for name in structure.factors if not isinstance(model.get_submodule(name), low_rank())]
    if structure.shared:
        _, layers = blocks(model)
        pairs = [
            (i, list(layers[i].parameters()), list(layers[s].parameters())) for i, s in enumerate(structure.shared)
        ]
        stray += [f"block {i}" for i, ours, theirs in pairs if list(map(id, ours)) != list(map(id, theirs))]
    if stray:
        raise WeighinError(f"{folder}: this version of transformers did not rebuild {', '.join(stray)}")


def _check_shared(model: Any, shared: tuple[int, ...]) -> None:
    _, layers = blocks(model)
    if len(shared) != len(layers) or any(not 0 <= s <= i or shared[s] != s for i, s in enumerate(shared)):
        raise WeighinError(
            f"{STRUCTURE}: shared must name, for each of the {len(layers)} blocks, itself or an earlier block that "
            f"has weights of its own (got {list(shared)})"
        )
    shapes = [{name: weight.shape for name, weight in layer.named_parameters()} for layer in layers]
    for i, source in enumerate(shared):
        if shapes[i] != shapes[source]:
            raise WeighinError(f"{STRUCTURE}: block {i} has other weights than block {source}, and cannot share them")


def _share(model: Any) -> None:
    """Make blocks share again, where the model carries that they do."""
    if shared := of(model).shared:
        _, layers = blocks(model)
        for i, source in enumerate(shared):
            if i != source:
                _alias(layers[i], layers[source])


def _own(shared: tuple[int, ...], _: Any, state: dict[str, Any], prefix: str, *__: Any) -> None:
    """Take the names of blocks that share another's weights out of a state: each weight is written and read once."""
    others = tuple(f"{prefix}{i}." for i, source in enumerate(shared) if i != source)
    for name in [name for name in state if name.startswith(others)]:
        del state[name]


def _alias(block: Any, source: Any) -> None:
    """Make a block compute with the modules of another. A module that knows its place in the cache stays its own."""
    for name, child in list(block.named_children()):
        if any(hasattr(module, "layer_idx") for module in child.modules()):
            _alias(child, getattr(source, name))
        else:
            block.register_module(name, getattr(source, name))
    for name, _ in list(block.named_parameters(recurse=False)):
        block.register_parameter(name, getattr(source, name))
    for name, _ in list(block.named_buffers(recurse=False)):
        block.register_buffer(name, getattr(source, name), persistent=name not in block._non_persistent_buffers_set)
