"""Which neurons, head groups and blocks a model needs least."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from weighin.adapters._calibrate import Calibration
from weighin.adapters._feed import Watch, feed
from weighin.adapters._shrink import Cut, Kept, check_attention, known, part, smaller
from weighin.harness import WeighinError
from weighin.harness.structure import blocks

if TYPE_CHECKING:
    import torch


def choose(model: Any, cut: Cut, source: Path, text: Calibration) -> Kept:
    """What stays, by one pass over the text (for the loss without a block, one for each block)."""
    _, layers = blocks(model)
    size = {**known(model.config), **smaller(known(model.config), cut)}
    ffns = [part(layer, "ffn")[1] for layer in layers] if cut.ffn else []
    attentions = [part(layer, "heads")[1] for layer in layers] if cut.heads else []
    for attention in attentions:
        check_attention(model, attention)
    seen = _measure(model, cut, source, text)
    neurons = [
        highest(neuron_scores(ffn, seen.get(f"{i} ffn")), size["intermediate_size"]) for i, ffn in enumerate(ffns)
    ]
    now = model.config.num_key_value_heads if cut.heads else 0
    groups = [
        highest(group_scores(attention, now, seen.get(f"{i} heads")), size["num_key_value_heads"])
        for i, attention in enumerate(attentions)
    ]
    stay = list(range(len(layers)))
    if cut.layers:
        import torch

        stay = highest(torch.cat([seen[f"{i} block"] for i in stay]), len(layers) - cut.layers).tolist()
    return Kept(stay, neurons or None, groups or None)


def _measure(model: Any, cut: Cut, source: Path, text: Calibration) -> dict[str, "torch.Tensor"]:
    """For block I: `I ffn` and `I heads` the mean |value| of all that they put out, `I block` how much it matters."""
    import torch

    sums: dict[str, torch.Tensor] = {}
    watches: dict[torch.nn.Module, Watch] = {}

    def add(name: str, value: torch.Tensor) -> None:
        sums[name] = value.double().sum(0) + sums.get(name, 0)

    def size(name: str) -> Watch:
        return lambda given, _: add(name, given.abs())

    def influence(name: str) -> Watch:
        return lambda given, made: add(name, block_influence(given, made)[:, None])

    for i, layer in enumerate(blocks(model)[1]):
        if cut.ffn and cut.method == "activation":
            watches[part(layer, "ffn")[1].down_proj] = size(f"{i} ffn")
        if cut.heads and cut.method == "activation":
            watches[part(layer, "heads")[1].o_proj] = size(f"{i} heads")
        if cut.layers and cut.depth == "influence":
            watches[layer] = influence(f"{i} block")
    tokens = feed(model, source, text, watches).tokens if watches else 0
    found = {name: (total / tokens).cpu() for name, total in sums.items()}
    if cut.layers and cut.depth == "loss":
        for i, loss in enumerate(losses_without(model, source, text)):
            found[f"{i} block"] = torch.tensor([loss], dtype=torch.float64)
    return found


def block_influence(given: "torch.Tensor", made: "torch.Tensor") -> "torch.Tensor":
    """1 - cos(x_in, x_out) for each token: (tokens, features) twice to (tokens,). ShortGPT, equation 1."""
    import torch

    return 1 - torch.nn.functional.cosine_similarity(given.double(), made.double(), dim=-1)


def losses_without(model: Any, source: Path, text: Calibration) -> list[float]:
    """Mean loss over the text, nats a token, with each block in turn left out. Shortened LLaMA, section 2.2."""
    found = []
    for layer in blocks(model)[1]:
        handle = layer.register_forward_hook(_pass_by, with_kwargs=True)
        found.append(feed(model, source, text, {}).loss)
        handle.remove()
    return found


def _pass_by(_: Any, given: tuple[Any, ...], named: dict[str, Any], made: Any) -> Any:
    """What a block was given, in the place of what it made of it."""
    first = given[0] if given else named["hidden_states"]
    return (first, *made[1:]) if isinstance(made, tuple) else first


def neuron_scores(ffn: Any, mean: "torch.Tensor | None") -> "torch.Tensor":
    """Importance of each neuron (neurons,): `mean` |activation| times the norm of its outgoing weights.

    Without `mean` the product of the norms of all its weights, which no scale that one layer takes from the next
    changes.
    """
    score: torch.Tensor = ffn.down_proj.weight.double().norm(dim=0)
    if mean is not None:
        return mean * score
    for name in ("up_proj", "gate_proj"):
        if hasattr(ffn, name):
            score = score * getattr(ffn, name).weight.double().norm(dim=1)
    return score


def group_scores(attention: Any, groups: int, mean: "torch.Tensor | None") -> "torch.Tensor":
    """Importance of each key-value head with its query heads (groups,): as for neurons, summed over what they put out.

    Without `mean` the norm of the value's rows times that of the columns that read the query heads' outputs.
    """
    out, value = attention.o_proj.weight.double(), attention.v_proj.weight.double()
    if mean is None:
        score: torch.Tensor = value.reshape(groups, -1).norm(dim=1) * out.T.reshape(groups, -1).norm(dim=1)
    else:
        score = (mean * out.norm(dim=0)).view(groups, -1).sum(1)
    return score


def highest(scores: "torch.Tensor", count: int) -> "torch.Tensor":
    """Where the `count` highest scores are, in order of place; of equal ones the later are kept."""
    import torch

    if not scores.isfinite().all():
        raise WeighinError("shrink: the measurements are not finite. Check the parent's weights")
    return scores.argsort(stable=True)[len(scores) - count :].sort().values.to(torch.long)
