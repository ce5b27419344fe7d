"""Planted truths of the suite robustness: oracles that lose a known part of their knowledge to each change."""

import math
from collections.abc import Iterator

from weighin.harness.plant import Recovered, Target, plant
from weighin.suites import _perturb
from weighin.suites._choices import Question, questions
from weighin.suites._lm_eval import Options
from weighin.suites._oracle import Oracle
from weighin.suites._planting import mean
from weighin.suites.robustness import robustness

TASK = "world_facts"
NUMBER = 40
NEEDS = ("lm_eval", "datasets", "torch", "transformers")
EXACT = 1e-6


def _asked() -> list[Question]:
    return questions([TASK], Options(limit=NUMBER))[TASK]


def _sure(question: Question, right: bool) -> dict[str, float]:
    """Sure of the right choice, or of the one after it."""
    (gold,) = question.gold
    best = gold if right else (gold + 1) % len(question.answers)
    return {answer: 0.9 if i == best else 0.01 for i, answer in enumerate(question.answers)}


@plant(needs=NEEDS)
def known_drops() -> Iterator[Recovered]:
    """An oracle that is right on every question as it is, and on a known share of them in each change."""
    shares = {"typos": 0.5, "lower": 0.75, "upper": 0.0, "spaces": 1.0, "punctuation": 0.25}
    beliefs, pairs = {}, 0.0
    for number, question in enumerate(_asked()):
        beliefs[question.contexts[0]] = _sure(question, True)
        kept = 1
        for kind, share in shares.items():
            right = number < share * NUMBER
            beliefs[_perturb.perturb(question.own, kind)] = _sure(question, right)
            kept += right
        pairs += (math.comb(kept, 2) + math.comb(6 - kept, 2)) / math.comb(6, 2) / NUMBER
    changes = list(shares)
    samples = list(robustness(Oracle(beliefs), limit=NUMBER, changes=changes))  # type: ignore[arg-type]
    for kind, share in shares.items():
        value = mean(samples, f"{TASK}/{kind}/drop")
        yield Recovered(f"drop, {kind}", f"{share:.0%} kept", value, Target("=", 1 - share, EXACT), planted=1 - share)
    for name, plan, true in (
        ("clean/acc", "all known", 1.0),
        ("mean/acc", "half kept on average", 0.5),
        ("worst/acc", "none kept in capitals", 0.0),
        ("consistency", "pairs that agree", pairs),
    ):
        yield Recovered(name, plan, mean(samples, f"{TASK}/{name}"), Target("=", true, EXACT), planted=true)


@plant(needs=NEEDS)
def known_positions() -> Iterator[Recovered]:
    """Oracles that always answer A, always know, and do the one in half of the questions and the other in the rest."""
    asked = _asked()
    spread = math.sqrt(3) / 4
    for plan, share, truths in (
        ("always A", 1.0, (0.25, spread, 0.0, 0.25)),
        ("always right", 0.0, (1.0, 0.0, 1.0, 1.0)),
        ("A in half, right in half", 0.5, (0.625, spread / 2, 0.5, 0.625)),
    ):
        beliefs = {}
        for number, question in enumerate(asked):
            texts = tuple(answer.strip() for answer in question.answers)
            for prompt, order in _perturb.orders(question.own, texts):
                best = 0 if number < share * NUMBER else order.index(min(question.gold))
                beliefs[prompt] = {f" {_perturb.LETTERS[i]}": 0.9 if i == best else 0.02 for i in range(4)}
        samples = list(robustness(Oracle(beliefs), limit=NUMBER, changes=["order"]))
        for name, true in zip(("acc", "rstd", "consistency", "acc_averaged"), truths, strict=True):
            value = mean(samples, f"{TASK}/order/{name}")
            yield Recovered(f"order {name}", plan, value, Target("=", true, EXACT), planted=true)


@plant(needs=NEEDS)
def known_formats() -> Iterator[Recovered]:
    """An oracle whose accuracy in the ten formats is 0, 10 %, ..., 90 %, and one that cares for none."""
    asked = _asked()
    for plan, step, truths in (
        ("0 to 90 %", 0.1, (0.0, 0.45, 0.9, 0.9)),
        ("all formats alike", 0.0, (0.5, 0.5, 0.5, 0.0)),
    ):
        beliefs = {}
        for number, question in enumerate(asked):
            for place, own in enumerate(_perturb.formats(question.own)):
                beliefs[own] = _sure(question, number < (place * step if step else 0.5) * NUMBER - 1e-9)
        samples = list(robustness(Oracle(beliefs), limit=NUMBER, changes=["format"]))
        for name, true in zip(("min", "median", "max", "spread"), truths, strict=True):
            value = mean(samples, f"{TASK}/format/{name}")
            yield Recovered(f"format {name}", plan, value, Target("=", true, EXACT), planted=true)
