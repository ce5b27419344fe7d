"""What a checkpoint turns out to be that another runtime than PyTorch computes with, from what the runtime tells.

Formats and bytes are those of the constants in the graph that is executed, not of the file. Distances are over the
matrices that the runtime can give back under PyTorch's names: linear layers and the embedding.
"""

from collections import Counter
from typing import Any

from weighin.harness.checkpoints import disk_bytes
from weighin.harness.identity import linear_layers, matrix
from weighin.harness.model import TransformersModel
from weighin.harness.outline import loader, read
from weighin.harness.runtime import Weight


def identify(model: TransformersModel) -> dict[str, Any]:
    """The identity of a checkpoint: the columns of the `identities` table but its two keys."""
    runtime = model.runtime
    assert runtime is not None
    kernel = runtime.kernel(model.encode("a b c d e f g h"))
    weights = list(runtime.weights())
    dtypes: Counter[str] = Counter()
    for weight in weights:
        dtypes[weight.dtype] += weight.elements
    matrices = [weight for weight in weights if weight.own and weight.value]
    bits = 8 * sum(w.bytes for w in matrices) / max(sum(w.elements for w in matrices), 1)
    settings = dict(runtime.settings())
    distance, reason = _distance(model, matrices)
    zeros = [_zeros(w) for w in matrices if "lm_head" not in w.name and "embed" not in w.name]
    return {
        "parameters": sum(weight.elements for weight in weights if weight.own),
        "disk_bytes": disk_bytes(model.checkpoint.path),
        "memory_bytes": model.weight_bytes(),
        "dtypes": dict(dtypes),
        "form": "packed" if matrices and bits < 15.2 else "dense",
        "kernel": f"{kernel} ({runtime.name})",
        "sparsity": sum(none for none, _ in zeros) / max(sum(of for _, of in zeros), 1),
        "distance": distance,
        "distance_reason": reason,
        "serving": {**model.served.shown(), **({"runtime": {runtime.name: settings}} if settings else {})},
        "loader": loader(read(model.checkpoint.path)),
    }


def _zeros(weight: Weight) -> tuple[int, int]:
    assert weight.value is not None
    found = weight.value()
    return int((found == 0).sum()), int(found.size)


def _distance(model: TransformersModel, matrices: list[Weight]) -> tuple[float | None, str | None]:
    import torch

    parent = model.relative("parent")
    if parent is None:
        return None, "its parent is not on this machine"
    if parent.runtime is not None:
        return None, "its parent is an export, too"
    theirs = {name: matrix(layer) for name, layer in linear_layers(parent.module)}
    embedding = parent.module.get_input_embeddings()
    names = {id(module): name for name, module in parent.module.named_modules()}
    theirs[names[id(embedding)]] = embedding.weight.detach().float()
    apart = size = 0.0
    found = set()
    for weight in matrices:
        assert weight.value is not None
        old = theirs.get(weight.name)
        if old is None:
            continue
        new = torch.from_numpy(weight.value())
        if new.shape != old.shape:
            return None, f"{weight.name} is {tuple(new.shape)}, its parent's {tuple(old.shape)}"
        found.add(weight.name)
        apart += float((new - old).double().square().sum())
        size += float(old.double().square().sum())
    lost = theirs.keys() - found - _tied(parent.module, names, embedding)
    if lost:
        return None, f"the runtime does not give back {len(lost)} of {len(theirs)} matrices, such as {min(lost)}"
    return (apart / size) ** 0.5 if size else 0.0, None


def _tied(module: Any, names: dict[int, str], embedding: Any) -> set[str]:
    """Names of embedding and head where they are one matrix: the runtime may keep either or both."""
    head = module.get_output_embeddings()
    tied = head is not None and head.weight is embedding.weight
    return {names[id(embedding)], names[id(head)]} if tied else set()
