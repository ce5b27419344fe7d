"""What a checkpoint turns out to be once reloaded: dtypes, bytes, the kernel that ran, its distance from its parent.

Matrices are read as what a layer does to the identity matrix: that is the weight it computes with, whatever the format
it is kept in, and needs no knowledge of the format.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from weighin.harness.checkpoints import disk_bytes
from weighin.harness.model import TransformersModel, tensors
from weighin.harness.outline import loader, read
from weighin.harness.structure import low_rank

MATRIX = ("::mm", "::addmm", "::matmul", "gemm", "gemv", "int8pack", "int4pack", "int_mm", "scaled_mm", "linear_")
UNPACK = ("dequantize", "unpack", "decompress")


def identify(model: TransformersModel) -> dict[str, Any]:
    """The identity of a checkpoint: the columns of the `identities` table but its two keys.

    Two forward passes come first (a prompt, one more token), since some formats unpack to dense at the first one.
    """
    kernel = _kernel(model)
    dtypes: Counter[str] = Counter()
    for tensor in _unique(tensors(model.module)):
        dtypes[str(tensor.dtype).removeprefix("torch.")] += tensor.numel()
    layers = dict(linear_layers(model.module))
    elements, sparsity, packed = _census(layers)
    distance, reason = _distance(model)
    seen = read(model.checkpoint.path)
    return {
        "parameters": elements + _rest(model.module, set(layers)),
        "disk_bytes": disk_bytes(model.checkpoint.path),
        "memory_bytes": model.weight_bytes(),
        "dtypes": dict(dtypes),
        "form": "packed" if packed else "simulated" if seen.packed else "dense",
        "kernel": kernel,
        "sparsity": sparsity,
        "distance": distance,
        "distance_reason": reason,
        "serving": model.served.shown(),
        "loader": loader(seen),
    }


def linear_layers(module: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Outermost layers that map `in_features` to `out_features`, by name: a wrapped layer counts with its wrapper."""
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        if isinstance(getattr(child, "in_features", None), int) and isinstance(
            getattr(child, "out_features", None), int
        ):
            yield path, child
        else:
            yield from linear_layers(child, path + ".")


def matrix(layer: Any) -> Any:
    """The weight a linear layer computes with, float32 (out_features, in_features)."""
    import torch

    if isinstance(layer, low_rank()):
        return matrix(layer.up) @ matrix(layer.down)
    weight = getattr(layer, "weight", None)
    if type(layer) is torch.nn.Linear and type(weight) is torch.nn.Parameter and weight.is_floating_point():
        return weight.detach().float()
    floating = (p for p in layer.parameters() if p.is_floating_point())
    like = next(floating, None)
    dtype = like.dtype if like is not None else torch.bfloat16
    device = next(layer.parameters()).device
    with torch.inference_mode():
        eye = torch.eye(layer.in_features, dtype=dtype, device=device)
        out = layer(eye).float()
        bias = getattr(layer, "bias", None)
        return (out - bias.float() if bias is not None else out).T


def _census(layers: dict[str, Any]) -> tuple[int, float, bool]:
    """Elements of the layers, share of zeros in all matrices but the head, and whether an element takes under 16 bits.

    A factorised layer counts with its two factors, one that several blocks share counts once.
    """
    elements = pruned_of = zeros = resident = 0
    for name, layer in {id(layer): (name, layer) for name, layer in layers.items()}.values():
        for part in (layer.down, layer.up) if isinstance(layer, low_rank()) else (layer,):
            weight, bias = matrix(part), getattr(part, "bias", None)
            elements += weight.numel() + (bias.numel() if bias is not None else 0)
            if "lm_head" not in name:  # no stage prunes the head, which often is the embedding
                pruned_of += weight.numel()
                zeros += int((weight == 0).sum())
        resident += sum(t.numel() * t.element_size() for t in _unique(tensors(layer)))
    return elements, zeros / pruned_of if pruned_of else 0.0, bool(elements) and resident / elements < 1.9


def _rest(module: Any, layers: set[str]) -> int:
    """Parameters outside the linear layers; embeddings tied to the head are the head's."""
    owned = {id(p) for name in layers for p in module.get_submodule(name).parameters()}
    return sum(p.numel() for p in module.parameters() if id(p) not in owned)


def _distance(model: TransformersModel) -> tuple[float | None, str | None]:
    parent = model.relative("parent")
    if parent is None:
        return None, "a base has no parent"
    parent.logprobs([model.encode("a b")])  # a packed parent may unpack at its first forward, too
    ours, theirs = dict(linear_layers(model.module)), dict(linear_layers(parent.module))
    if ours.keys() != theirs.keys():
        return None, "its layers are not its parent's"
    apart = size = 0.0
    for name in ours:
        new, old = matrix(ours[name]), matrix(theirs[name])
        if new.shape != old.shape:
            return None, f"{name} is {tuple(new.shape)}, its parent's {tuple(old.shape)}"
        apart += float((new - old).double().square().sum())
        size += float(old.double().square().sum())
    rest = _others(parent.module, set(theirs))
    tied = _tied(model.module, set(ours)) & _tied(parent.module, set(theirs))  # compared with the head already
    for name, new in _others(model.module, set(ours)).items():
        old = rest.get(name)
        if name in tied:
            continue
        if old is None or new.shape != old.shape:
            return None, f"{name} is not its parent's"
        apart += float((new.float() - old.float()).double().square().sum())
        size += float(old.double().square().sum())
    return (apart / size) ** 0.5 if size else 0.0, None


def _others(module: Any, layers: set[str]) -> dict[str, Any]:
    """Parameters outside the linear layers, by name: norms, embeddings. Those that blocks share, for each block."""
    return {
        name: p.detach()
        for name, p in module.named_parameters(remove_duplicate=False)
        if not any(name.startswith(layer + ".") for layer in layers)
    }


def _tied(module: Any, layers: set[str]) -> set[str]:
    """Names of parameters outside the linear layers that are a linear layer's own: embeddings tied to the head."""
    owned = {id(p) for name in layers for p in module.get_submodule(name).parameters()}
    named = module.named_parameters(remove_duplicate=False)
    return {name for name, p in named if id(p) in owned and not any(name.startswith(f"{layer}.") for layer in layers)}


def _unique(found: Iterator[Any]) -> list[Any]:
    return list({(t.device, t.untyped_storage().data_ptr(), t.storage_offset()): t for t in found}.values())


def _kernel(model: TransformersModel) -> str:
    """The operator with the most time in matrix products over a prompt and a step, and the one that unpacks for it."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    ids = torch.tensor([model.encode("a b c d e f g h")], device=model.module.device)
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if ids.is_cuda else [])
    with torch.inference_mode():
        cache = model.module(input_ids=ids, use_cache=True).past_key_values
        with profile(activities=activities) as measured:
            model.module(input_ids=ids, use_cache=False)
            model.module(input_ids=ids[:, -1:], past_key_values=cache, use_cache=True)
    events = sorted(measured.key_averages(), key=lambda e: -e.self_cpu_time_total)
    products = [e.key for e in events if any(mark in e.key for mark in MATRIX) and "bmm" not in e.key]
    unpack = [e.key for e in events if any(mark in e.key for mark in UNPACK)]
    return " after ".join([*products[:1], *unpack[:1]]) or "unknown"
