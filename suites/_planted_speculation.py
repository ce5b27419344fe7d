"""Planted truths of the suite speculation: verifiers that are right, and verifiers with a known fault."""

import random
from collections.abc import Callable, Iterator
from typing import Any

from weighin.harness import Checkpoint
from weighin.harness.model import Loading, TransformersModel
from weighin.harness.plant import Recovered, Target, plant
from weighin.harness.reference import reference_path
from weighin.harness.serving import Serving
from weighin.suites._lossless import chi_square
from weighin.suites.speculation import speculation

NEEDS = ("torch", "transformers", "scipy")
TOKENS, DRAWS, TRIES = 32, 20_000, 200


class _Looked:
    """A reference model served by prompt lookup, whose tokens go through `change` on their way out."""

    def __init__(self, change: Callable[[Any], Any]) -> None:
        model = TransformersModel(Checkpoint(reference_path("draft"), "draft"), {}, Loading(dtype="float32"))
        self.model, self.module = model, model.module
        options = {"prompt_lookup_num_tokens": 4}
        self.endpoint: Any = None
        self.served, self.serving, self.draft = Serving(options=options, block=4), {"do_sample": False, **options}, None
        plain = self.module.generate

        def generate(**asked: Any) -> Any:
            made = plain(**asked)
            return change(made) if "prompt_lookup_num_tokens" in asked else made

        self.module.generate = generate

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)


def _same(change: Callable[[Any], Any], seed: int) -> float:
    model: Any = _Looked(change)
    samples = speculation(model, samples=4, new_tokens=48, warmup=0, seed=seed)
    found = [s.value for s in samples if s.metric and s.metric.name == "same_text" and s.value is not None]
    return sum(found) / len(found)


@plant(needs=NEEDS)
def a_verifier_that_accepts_wrong_tokens() -> Iterator[Recovered]:
    """One token in a hundred is another one; 4 texts of 48 tokens each time. And a verifier that is right."""
    draw = random.Random(0)

    def faulty(made: Any) -> Any:
        changed = made.clone()
        for place in range(made.shape[1] - 48, made.shape[1]):
            if draw.random() < 0.01:
                changed[0, place] = (int(made[0, place]) + 7) % 1536
        return changed

    # P(no fault in 192 tokens) = 0.99^192 = 0.15, so the texts of several tries are taken together.
    caught = sum(min(_same(faulty, seed) for seed in range(3 * i, 3 * i + 3)) < 1 for i in range(5))
    yield Recovered("caught, greedy text", "1 % wrong tokens", caught / 5, Target("≥", 0.95), planted=1.0)
    right = sum(_same(lambda made: made, seed) for seed in range(5)) / 5
    yield Recovered("same text", "a right verifier", right, Target("=", 1), planted=1.0)


def _speculative(p: Any, q: Any, draw: Any, fault: str) -> Any:
    """Counts of the first token of speculative sampling, target p and draft q (Leviathan et al., 2211.17192)."""
    import numpy as np

    drafted = draw.choice(TOKENS, DRAWS, p=q)
    accepted = draw.random(DRAWS) < np.minimum(1, p[drafted] / q[drafted])
    rest = p if fault == "resamples from the target" else np.maximum(p - q, 0)
    again = draw.choice(TOKENS, DRAWS, p=rest / rest.sum())
    return np.bincount(np.where(accepted, drafted, again), minlength=TOKENS)


@plant(needs=NEEDS)
def samplers_of_known_distribution() -> Iterator[Recovered]:
    """20,000 tokens drawn by a sampler that is right, by two that are not; 200 tries of each."""
    import numpy as np

    draw = np.random.default_rng(0)
    faults = {"none": Target("in", 0.05, 0.02), "resamples from the target": Target("≥", 0.95)}
    for fault, target in {**faults, "target at temperature 1.1": Target("≥", 0.95)}.items():
        found = 0
        for _ in range(TRIES):
            logits, other = draw.normal(0, 1.5, TOKENS), draw.normal(0, 0.7, TOKENS)
            p, q, warm = (np.exp(x) / np.exp(x).sum() for x in (logits, logits + other, logits / 1.1))
            served = warm if fault == "target at temperature 1.1" else p
            found += chi_square(_speculative(served, q, draw, fault).tolist(), p.tolist()) < 0.05
        name = "false alarms, sampling" if fault == "none" else "caught, sampling"
        yield Recovered(name, fault, found / TRIES, target)
