"""What the scorer `fast` costs: questions whose two likeliest choices are nearly tied, and those it answers otherwise.

Its rounding depends on what else is asked, and can only turn an answer that rounding decides. So the near-ties alone
are asked again, of `exact`.
"""

from collections.abc import Iterator
from typing import Any

from weighin.harness import Metric, Model, Sample
from weighin.harness.scorer import exactly, scoring_of, tolerance
from weighin.suites._hflm import language_model


def flips(model: Model, name: str, logged: list[dict[str, Any]]) -> Iterator[Sample]:
    """Shares of a task's questions, from lm-eval's samples of it; nothing where `exact` has answered already."""
    if model.endpoint:  # it has a way of its own
        return
    asked = {sample["doc_id"]: sample for sample in logged if _choices(sample)}
    if scoring_of(model).mode != "fast" or not asked:
        return
    near = [sample for sample in asked.values() if _gap(_choices(sample)) < 2 * tolerance(model)]
    yield Sample("all", len(near) / len(asked), Metric(f"{name}/near_ties", "1", better="none"), weight=len(asked))
    turned: float | None = None
    with exactly(model) as can:
        if can:
            turned = sum(_best(_again(model, sample)) != _best(_choices(sample)) for sample in near) / len(asked)
    metric = Metric(f"{name}/flips_to_exact", "1", better="lower")
    reason = None if can else "on this machine no scorer is exact"
    yield Sample("all", turned, metric, weight=len(asked), reason=reason)


def _choices(sample: dict[str, Any]) -> list[float]:
    """Log-likelihoods of a question's choices, nats; none where it is no such question."""
    found = sample["filtered_resps"]
    two = len(found) > 1 and all(isinstance(each, list | tuple) and len(each) == 2 for each in found)
    return [float(each[0]) for each in found] if two else []


def _gap(likely: list[float]) -> float:
    first, second = sorted(likely, reverse=True)[:2]
    return first - second


def _best(likely: list[float]) -> int:
    return max(range(len(likely)), key=likely.__getitem__)


def _again(model: Model, sample: dict[str, Any]) -> list[float]:
    """The choices of a question by the scorer that the model has now."""
    from lm_eval.api.instance import Instance

    pairs = [tuple(pair) for pair in sample["arguments"][: len(_choices(sample))]]
    lm = language_model(model, 1, None, None)
    asked = [Instance("loglikelihood", sample["doc"], pair, number) for number, pair in enumerate(pairs)]
    return [value for value, _ in lm.loglikelihood(asked, disable_tqdm=True)]
