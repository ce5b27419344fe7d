"""What the quantising stages share: the group size a model allows, the grid, rounding onto it, packing to disk."""

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from unittest.mock import patch

from weighin.adapters._calibrate import Calibration, calibrate
from weighin.adapters._hf import fit, head_names, linears, load_float32, load_tokenizer, save
from weighin.harness import Outline, WeighinError, outline
from weighin.harness.text import documents, encode

if TYPE_CHECKING:
    import torch


EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")
"""What config.json calls the number of experts of a layer."""
MIXTURE = (
    "the parent is a mixture of experts, and transformers does not read packed experts back (it would draw them at "
    "random). Allowed: models without experts"
)


class Grid(NamedTuple):
    """The values that weights are rounded to; `group_size` inputs of a row share a scale, with -1 the whole row."""

    bits: int
    group_size: int = -1
    symmetric: bool = True
    activations: Literal[16, 8] = 16
    """Bits of the layers' inputs: 16 leaves them alone, 8 rounds each token's with a scale of its own at run time."""
    misfit: Literal["refuse", "rows"] = "refuse"
    """Of layers whose inputs the groups do not divide: an error, or one scale for a whole row of theirs."""

    def sharing(self, layer: Any) -> int:
        """The group size of a layer."""
        return -1 if self.misfit == "rows" and layer.in_features % self.group_size else self.group_size


def foresee(stage: str, parent: Outline, params: Mapping[str, Any]) -> Outline:
    """The child of a dense parent, whose layers may be factorised but not shared between blocks.

    WeighinError where it cannot be (experts cannot either), or the group size cannot fit the sizes in config.json.
    """
    if "shared" in parent.structure:
        raise WeighinError(
            f"blocks of the parent share their weights, and the packed file of {stage} cannot be read back into such. "
            f"Put {stage} before the stage that shares them"
        )
    if any((parent.config.get(name) or 0) > 1 for name in EXPERTS):
        raise WeighinError(MIXTURE)
    found = outline.dense(stage, parent)
    if not parent.structure and params.get("misfit") != "rows":  # the layers are those that config.json describes
        check_group_size(_input_sizes(parent.config), params.get("group_size", -1))
    if params.get("packed", True):
        return found.but(packed="compressed-tensors")
    if params.get("activations") == 8:
        raise WeighinError("packed: only the packed file says that activations have 8 bits. Allowed: true")
    return found


def foresee_named(stage: str, parent: Outline, params: Mapping[str, Any]) -> Outline:
    """Like `foresee`, for a stage that knows by their names which layers follow each other."""
    outline.plain(stage, parent)
    return foresee(stage, parent, params)


def _input_sizes(config: Mapping[str, Any]) -> dict[str, int]:
    """How many numbers the linear layers read, as far as config.json tells."""
    known = {f"layers ({name})": config.get(name) for name in ("hidden_size", "intermediate_size")}
    sizes = {name: size for name, size in known.items() if isinstance(size, int)}
    heads, width = config.get("num_attention_heads"), config.get("head_dim")
    if isinstance(heads, int) and isinstance(width, int):
        sizes["layers (num_attention_heads * head_dim)"] = heads * width
    return sizes


def check_layers(model: Any, grid: Grid) -> None:
    """Like `foresee`, for what no config.json tells: the layers themselves."""
    import torch

    convolutions = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)
    owners = (module for module in model.modules() if not isinstance(module, convolutions))
    if any(weight.dim() > 2 for module in owners for weight in module.parameters(recurse=False)):
        raise WeighinError(MIXTURE)  # experts in one block of weights
    if grid.misfit == "refuse":
        check_group_size({name: layer.in_features for name, layer in linears(model).items()}, grid.group_size)


def check_group_size(sizes: Mapping[str, int], group_size: int) -> None:
    """WeighinError unless `group_size` divides each of the input sizes."""
    misfit = [(name, size) for name, size in sizes.items() if size % abs(group_size)]
    if misfit:
        common = math.gcd(*sizes.values())
        allowed = [str(n) for n in range(1, common + 1) if common % n == 0 and (n >= 8 or common < 8)]
        name, size = misfit[0]
        raise WeighinError(
            f"group_size: {group_size} does not divide the input size {size} of {name}. "
            f"Allowed for this model: -1 (a whole row), {', '.join(allowed)}; or misfit: rows"
        )


def onto(grid: Grid, model: Any, dtype: "torch.dtype") -> dict[str, Any]:
    """Arguments of an llm-compressor modifier that quantises every linear layer but the head.

    Scales are rounded to `dtype`, that of the file, before weights are rounded or fitted to them, not after.
    """
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    inputs = {"num_bits": 8, "strategy": "token", "dynamic": True} if grid.activations == 8 else None
    sizes = {name: grid.sharing(layer) for name, layer in linears(model).items()}
    groups = {}
    for number, size in enumerate(sorted(set(sizes.values()), reverse=True)):
        rows = {"strategy": "channel"} if size == -1 else {"strategy": "group", "group_size": size}
        groups[f"group_{number}"] = QuantizationScheme(
            targets=["Linear"] if len(set(sizes.values())) == 1 else [name for name in sizes if sizes[name] == size],
            weights=QuantizationArgs(num_bits=grid.bits, symmetric=grid.symmetric, scale_dtype=dtype, **rows),
            input_activations=inputs,
            # With quantised activations the library would store weights of few bits as whole bytes.
            format="pack-quantized" if grid.bits < 8 else None,
        )
    return {"config_groups": groups, "ignore": head_names(model)}


def round_to_nearest(model: Any, grid: Grid, dtype: "torch.dtype") -> None:
    """Set the scales of every linear layer by its largest weights; `save_packed` rounds. Reads no data."""
    from compressed_tensors.offload import remove_dispatch
    from llmcompressor.entrypoints.oneshot import oneshot
    from llmcompressor.modifiers.quantization import QuantizationModifier

    oneshot(model=model, recipe=[QuantizationModifier(**onto(grid, model, dtype))])
    remove_dispatch(model)
    vars(model).pop("save_pretrained", None)


def round_by_gptq(model: Any, grid: Grid, dtype: "torch.dtype", source: Path, text: Calibration) -> None:
    """GPTQ: round one column after the other, the rest makes up for the error. Weights that are zero stay zero."""
    from llmcompressor.modifiers.quantization import GPTQModifier

    zeros = {name: layer.weight == 0 for name, layer in linears(model).items()}
    with _zeros_kept():
        calibrate(model, GPTQModifier(**onto(grid, model, dtype)), source, text)
    lost = [name for name, layer in linears(model).items() if layer.weight[zeros[name]].any()]
    if lost:
        raise WeighinError(f"GPTQ: weights that were zero are not any more, in {', '.join(lost)}")


def check_mapped(stage: str, model: Any, groups: Iterable[Sequence[str]]) -> None:
    """WeighinError unless llm-compressor finds layers by these names: in each group one, and those that read it."""
    from compressed_tensors.utils import match_modules_set

    wanted = [list(group) for group in groups]
    try:
        found = [members for group in wanted for members in match_modules_set(model, group)]
    except ValueError:  # some of a group are there and some are not
        found = []
    if not found:
        names = ", ".join(name.removeprefix("re:.*").removesuffix("$") for group in wanted for name in group)
        raise WeighinError(
            f"{stage}: {type(model).__name__} does not call its layers as {stage} expects ({names}). "
            "Allowed: models like Llama, Qwen, Mistral"
        )


def probe(model: Any, source: Path, text: Calibration) -> "torch.Tensor":
    """Logits of the first calibration document without quantisation: (1, token, vocabulary)."""
    import torch
    from llmcompressor.utils.helpers import DisableQuantization

    texts = documents(text.data, samples=text.samples, seed=text.seed)
    row = encode(load_tokenizer(source), texts, fit(model, text.max_length))[0]
    with torch.no_grad(), DisableQuantization(model):
        logits: torch.Tensor = model(torch.tensor([row], device=model.device)).logits
    return logits


def check_same_function(stage: str, model: Any, before: "torch.Tensor", after: "torch.Tensor") -> None:
    """WeighinError unless scaling left alone what the model computes, up to rounding in float32.

    The library knows by name which norm feeds which layer. Where an architecture uses the names otherwise (a norm after
    the layer, say) the scales would not cancel out.
    """
    gap = float((after - before).norm() / before.norm())
    if not gap < 1e-3:
        raise WeighinError(
            f"{stage}: scaling changed what {type(model).__name__} computes (logits are {gap:.2g} of their length "
            f"apart): {stage} does not know how its layers follow each other"
        )


def save_packed(model: Any, dtype: "torch.dtype", out: Path, source: Path) -> None:
    """Round, pack and write; WeighinError where a layer was missed or its scales are not finite."""
    from compressed_tensors.compressors import ModelCompressor

    _check_quantised(model)
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    save(model.to(dtype), out, source)
    compressor.update_config(str(out))


def save_dense(model: Any, dtype: "torch.dtype", out: Path, source: Path) -> None:
    """Round, and write the rounded values as a plain dense model that later stages can work on."""
    from compressed_tensors.quantization import forward_quantize

    _check_quantised(model)
    for layer in linears(model).values():
        scheme: Any = layer.quantization_scheme
        layer.weight.data = forward_quantize(layer, layer.weight.data, "weight", scheme.weights)
    plain, _ = load_float32(source)
    values = model.state_dict()
    plain.load_state_dict({name: values[name] for name in plain.state_dict()})
    save(plain.to(dtype), out, source)


def _check_quantised(model: Any) -> None:
    for name, layer in linears(model).items():
        if getattr(layer, "quantization_scheme", None) is None:
            raise WeighinError(f"{name} was not quantised: {type(layer).__name__} is no kind of layer known here")
        if not layer.get_parameter("weight_scale").isfinite().all():
            raise WeighinError(f"{name}: scales are not finite. Check the parent's weights")


@contextmanager
def _zeros_kept() -> Iterator[None]:
    """Within the block, GPTQ rounds a weight that was zero to zero, and the columns to its right make up for it.

    The library lets the error of earlier columns fill the zeros of a pruned parent. Rounding is the one place where a
    column's value is decided, so that is where the mask goes; the library's order of columns is noted on the way.
    """
    from llmcompressor.modifiers.gptq import gptq_quantize

    library: Any = gptq_quantize
    order, quantise = library.apply_activation_ordering, library.fake_quantize
    columns: Iterator[Any] = iter(())

    def ordered(weights: Any, *rest: Any) -> Any:
        nonlocal columns
        result = order(weights, *rest)
        columns = iter((result[0] != 0).unbind(-1))
        return result

    def rounded(column: Any, *rest: Any) -> Any:  # column: (rows, batch)
        return quantise(column, *rest).masked_fill(~next(columns).transpose(0, 1), 0)

    with (
        patch.object(library, "apply_activation_ordering", ordered),
        patch.object(library, "fake_quantize", rounded),
        # The fused GPU kernel rounds out of our sight; the plain one calls the function above.
        patch.dict(os.environ, {"LLMCOMPRESSOR_DISABLE_GPTQ_TRITON": "1"}),
    ):
        yield
