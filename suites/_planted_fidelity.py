"""Planted truths of the suite fidelity: noise of known strength, swapped tokens, the same model twice, a chain."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from weighin.harness import Abstain, Checkpoint
from weighin.harness.model import Loading, TransformersModel
from weighin.harness.plant import Recovered, Target, plant
from weighin.harness.reference import reference_path
from weighin.harness.text import documents, encode
from weighin.suites.fidelity import fidelity

NEEDS = ("torch", "transformers", "lm_eval", "datasets")
TEXT, TEXTS = "reference:heldout", 40


@dataclass
class _Changed:
    """A model whose log-probabilities are changed on their way out, and which descends from others."""

    model: Any
    change: Callable[[Any], Any]
    parent: Any
    root: Any

    def __post_init__(self) -> None:
        self.checkpoint = Checkpoint(reference_path("draft"), f"changed {id(self)}")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def logprobs(self, batch: list[list[int]]) -> Any:
        return self.change(self.model.logprobs(batch)).log_softmax(-1)

    def relative(self, which: Literal["parent", "root"]) -> Any:
        return self.parent if which == "parent" else self.root


def _reference(name: str = "draft") -> TransformersModel:
    return TransformersModel(Checkpoint(reference_path(name), name), {}, Loading(dtype="float32"))


def _rows(model: Any) -> list[tuple[int, ...]]:
    """The documents as the suite reads them."""
    return list(dict.fromkeys(map(tuple, encode(model.tokenizer, documents(TEXT, samples=TEXTS, seed=0), 128))))


def _means(model: Any) -> dict[str, float]:
    """Token-weighted means by metric over some held-out documents, no tasks."""
    sums: dict[str, list[float]] = {}
    for sample in fidelity(model, samples=TEXTS, tasks=[], max_length=128):
        if sample.metric and sample.value is not None:
            held = sums.setdefault(sample.metric.name, [0.0, 0.0])
            held[0] += sample.value * sample.weight
            held[1] += sample.weight
    return {name: total / weight for name, (total, weight) in sums.items()}


def _noise(sigma: float) -> Callable[[Any], Any]:
    import torch

    draw = torch.Generator().manual_seed(0)
    return lambda logits: logits + sigma * torch.randn(logits.shape, generator=draw)


@plant(needs=NEEDS)
def noise_of_known_strength() -> Iterator[Recovered]:
    """Normal noise on every logit: KL = half its variance times (1 - sum of squared probabilities), to second order."""
    model = _reference()
    expected, tokens = 0.0, 0
    for row in _rows(model):
        likely = model.logprobs([list(row)])[0, : len(row) - 1].exp()
        expected += float((1 - likely.square().sum(-1)).sum())
        tokens += len(likely)
    for sigma in (0.05, 0.2):
        truth = 0.5 * sigma**2 * expected / tokens
        found = _means(_Changed(model, _noise(sigma), model, model))["kl_parent"]
        target = Target("in", truth, 0.05 * truth)
        yield Recovered("KL divergence", f"noise of {sigma:g}", found, target, "nat/token", planted=truth)


@plant(needs=NEEDS)
def the_same_model_twice() -> Iterator[Recovered]:
    """A model that descends from itself."""
    model = _reference()
    found = _means(_Changed(model, lambda logprobs: logprobs, model, model))
    for metric, truth in (
        ("kl_parent", 0.0),
        ("kl_p99_parent", 0.0),
        ("ln_ppl_ratio_parent", 0.0),
        ("top1_parent", 1.0),
    ):
        yield Recovered(metric, "the same model", found[metric], Target("=", truth, 1e-6), planted=truth)


@plant(needs=NEEDS)
def two_tokens_swapped() -> Iterator[Recovered]:
    """The probabilities of two tokens change places: top-1 agreement falls by how often one of them is likeliest."""
    model = _reference()
    first, second = (model.encode(text)[-1] for text in (" the", " a"))
    hit = total = 0

    def swapped(logprobs: Any) -> Any:
        found = logprobs.clone()
        found[..., [first, second]] = logprobs[..., [second, first]]
        return found

    for row in _rows(model):
        likeliest = model.logprobs([list(row)])[0, : len(row) - 1].argmax(-1)
        hit += int(((likeliest == first) | (likeliest == second)).sum())
        total += len(likeliest)
    found, truth = _means(_Changed(model, swapped, model, model))["top1_parent"], 1 - hit / total
    yield Recovered("top-1 agreement", "two tokens swapped", found, Target("=", truth, 1e-6), planted=truth)


@plant(needs=NEEDS)
def a_chain_of_losses() -> Iterator[Recovered]:
    """Root, parent and variant, each noisier: the losses of the two steps add up to that of the whole, by document."""
    root = _reference()
    parent = _Changed(root, lambda logprobs: logprobs * 0.9, root, root)
    variant = _Changed(root, lambda logprobs: logprobs * 0.7, parent, root)
    first, second = (_by_document(model) for model in (parent, variant))
    worst = max(
        abs(first[item, "parent"] + second[item, "parent"] - second[item, "root"])
        for item, kin in second
        if kin == "root"
    )
    yield Recovered("gap in a sum of losses", "a chain of two steps", worst, Target("≤", 1e-6), "nat/token")


def _by_document(model: Any) -> dict[tuple[str, str], float]:
    samples = fidelity(model, samples=TEXTS, tasks=[], max_length=128)
    found = [
        (s.item, s.metric.name.rpartition("_")[2], s.value) for s in samples if s.metric and "ln_ppl" in s.metric.name
    ]
    return {(item, kin): value for item, kin, value in found if value is not None}


@plant(needs=NEEDS)
def another_vocabulary() -> Iterator[Recovered]:
    """A parent whose tokens mean something else: the suite abstains."""

    class Renamed:
        def __init__(self, tokenizer: Any) -> None:
            self.tokenizer = tokenizer

        def __getattr__(self, name: str) -> Any:
            return getattr(self.tokenizer, name)

        def get_vocab(self) -> dict[str, int]:
            return {f"{token}'": number for token, number in self.tokenizer.get_vocab().items()}

    model, other = _reference(), _reference()
    other.tokenizer = Renamed(other.tokenizer)
    abstained = 0.0
    try:
        _means(_Changed(model, lambda logprobs: logprobs, other, other))
    except Abstain:
        abstained = 1.0
    yield Recovered("abstains", "another vocabulary", abstained, Target("=", 1))
