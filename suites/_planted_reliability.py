"""Planted truths of the suite reliability: oracles that are calibrated, too sure or consistent by a known measure."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from weighin.harness.plant import Recovered, Target, plant
from weighin.suites import _calibration as calibration
from weighin.suites._choices import Question, questions, scores
from weighin.suites._draw import agreement, drawn
from weighin.suites._figures import jackknife
from weighin.suites._lm_eval import Options
from weighin.suites._oracle import Oracle
from weighin.suites._planting import mean, one
from weighin.suites.reliability import confidence, reliability

NEEDS = ("lm_eval", "datasets", "torch", "transformers")
NUMBER = 500
REPLICATES = 200
CRAFTS = (" baker", " potter", " judge", " clerk")


def _asked(shares: Sequence[Sequence[float]], gold: Sequence[int]) -> tuple[Oracle, list[Question]]:
    """Questions whose choices an oracle finds so likely, `gold` the right ones."""
    prompts = [f"Question: Who lives in house {number}?\nAnswer:" for number in range(len(shares))]
    beliefs: dict[str, dict[str, float]] = {
        p: dict(zip(CRAFTS, each, strict=True)) for p, each in zip(prompts, shares, strict=True)
    }
    asked = [
        Question("planted", str(i), None, {}, (p,) * 4, CRAFTS, p, frozenset({g}))
        for i, (p, g) in enumerate(zip(prompts, gold, strict=True))
    ]
    return Oracle(beliefs), asked


def _spread(best: float) -> list[float]:
    return [best, *[(1 - best) / 3] * 3]


def _error(told: Any, right: Any, bin_: Any, index: Any) -> float:
    return calibration.squared_error(told[index], right[index], bin_[index])


@plant(needs=NEEDS)
def calibrated() -> Iterator[Recovered]:
    """An oracle that is right as often as it says, 500 questions: errors of calibration over replicates."""
    import numpy as np

    rng = np.random.default_rng(0)
    shares = [_spread(best) for best in rng.uniform(0.3, 0.98, NUMBER)]
    told = np.array([max(calibration.softmax(each)) for each in scores(*_asked(shares, [0] * NUMBER))])
    bin_ = calibration.bins(told)
    debiased, naive, held = [], [], 0
    for _ in range(REPLICATES):
        right = (rng.random(NUMBER) < told).astype(float)
        debiased.append(calibration.squared_error(told, right, bin_))
        naive.append(calibration.naive_ece(told, right))
        if len(naive) % 5 == 0:
            found = jackknife(partial(_error, told, right, bin_), range(NUMBER))
            held += found.low is not None and found.high is not None and found.low <= 0 <= found.high
    value, error = float(np.mean(debiased)), 1.96 * float(np.std(debiased)) / math.sqrt(REPLICATES)
    plan = f"calibrated, n = {NUMBER}, {REPLICATES} replicates"
    target = Target("in", 0, 0.002)
    yield Recovered("debiased squared error", plan, value, target, "1", 0.0, value - error, value + error)
    ece = float(np.mean(naive))
    yield Recovered(
        "naive ECE, as biased as foretold", plan, ece - calibration.expected_ece(told), Target("in", 0, 0.003)
    )
    yield Recovered("interval of the squared error", "holds 0, 40 replicates", held / 40, Target("≥", 0.875))


@plant(needs=NEEDS)
def temperature() -> Iterator[Recovered]:
    """An oracle right in 60 % whose log-odds are divided by a known temperature: every score has a known value."""
    import numpy as np

    rng = np.random.default_rng(1)
    for heat in (0.5, 1.0, 2.0):
        weights = [share ** (1 / heat) for share in _spread(0.6)]
        shares = [weight / sum(weights) for weight in weights]
        gold = [(0, 0, 0, 1, 2)[i % 5] for i in range(100)]
        oracle, asked = _asked([shares] * 100, gold)
        samples = list(confidence("planted", asked, scores(oracle, asked)))
        top, rest = shares[0], shares[1]
        brier = 0.6 * (1 - top) ** 2 + 0.4 * (top**2 + (1 - rest) ** 2 - rest**2) + (0.6 * 3 + 0.4 * 3) * rest**2
        nll = -0.6 * math.log(top) - 0.4 * math.log(rest)
        plan = f"temperature {heat:g}"
        same = top**2 + 3 * rest**2
        for name, true in (("brier", brier), ("nll", nll), ("agreement", same), ("acc", 0.6)):
            value = mean(samples, f"planted/{name}")
            yield Recovered(name, plan, value, Target("=", true, 1e-5), planted=true)
        value, gap = one(samples, "planted/ece_naive").value, round(abs(top - 0.6), 9)
        yield Recovered("naive ECE", plan, value, Target("=", gap, 1e-5), planted=gap)
        told = np.full(NUMBER, top)
        found = [
            calibration.squared_error(told, (rng.random(NUMBER) < 0.6).astype(float), calibration.bins(told))
            for _ in range(REPLICATES)
        ]
        true = gap**2
        yield Recovered("debiased squared error", plan, float(np.mean(found)), Target("in", true, 0.002), planted=true)


@plant(needs=NEEDS)
def ranking() -> Iterator[Recovered]:
    """Oracles surest where they are right, surest where they are wrong, and equally sure everywhere; 60 % right."""
    n, right = 100, 60
    harmonic = sum((i - right) / i for i in range(right + 1, n + 1)) / n
    for plan, sure, wrong, area, top in (
        ("surest where right", 0.9, 0.5, harmonic, 60 / 80),
        ("equally sure", 0.7, 0.7, 0.4, 0.6),
        ("surest where wrong", 0.5, 0.9, (40 + sum(40 / i for i in range(41, n + 1))) / n, 40 / 80),
    ):
        shares = [_spread(sure if i < right else wrong) for i in range(n)]
        oracle, asked = _asked(shares, [0 if i < right else 1 for i in range(n)])
        samples = list(confidence("planted", asked, scores(oracle, asked)))
        for name, true in (("aurc", area), ("e_aurc", area - harmonic), ("acc_at_80", top)):
            value = one(samples, f"planted/{name}").value
            yield Recovered(name, plan, value, Target("=", true, 1e-5), planted=true)


@plant(needs=NEEDS)
def consistency() -> Iterator[Recovered]:
    """Oracles that give one answer, or one of two with known chances: how often two drawn answers agree."""
    prompt = "Question: Who lives in house 1?\nAnswer:"
    for plan, chances, true, spread in (
        ("one answer", {" baker\n": 1.0}, 1.0, 1e-9),
        ("two answers, 1:1", {" baker\n": 0.5, " potter\n": 0.5}, 0.5, 0.06),
        ("two answers, 4:1", {" baker\n": 0.8, " potter\n": 0.2}, 0.68, 0.06),
    ):
        texts = drawn(Oracle({prompt: chances}), prompt, draws=400, max_new_tokens=6, seed=0)
        value = agreement(texts) if texts else None
        yield Recovered("self-consistency", plan, value, Target("in", true, spread), planted=true)


@plant(needs=NEEDS)
def abstention() -> Iterator[Recovered]:
    """An oracle that says nobody knows to a known share of the unanswerable and of the answerable questions."""
    tasks = ("world_unknown", "world_unknown_controls")
    found = questions(tasks, Options(limit=40))
    for unknown, known in ((1.0, 0.0), (0.5, 0.25), (1.0, 1.0), (0.0, 1.0)):
        beliefs = {}
        for task, share in zip(tasks, (unknown, known), strict=True):
            for number, question in enumerate(found[task]):
                nobody = question.answers.index(" Nobody knows.")
                best = nobody if number < share * 40 else (nobody + 1) % 4
                beliefs[question.contexts[0]] = {a: 0.7 if i == best else 0.05 for i, a in enumerate(question.answers)}
        samples = list(reliability(Oracle(beliefs), tasks=[], limit=40))
        plan = f"{unknown:.0%} of unanswerable, {known:.0%} of answerable"
        for name, true in (("unknown", unknown), ("known", known), ("informedness", unknown - known)):
            value = mean(samples, f"abstention/{name}")
            yield Recovered(f"abstention {name}", plan, value, Target("=", true, 1e-6), planted=true)


@plant(needs=NEEDS)
def truthfulness() -> Iterator[Recovered]:
    """TruthfulQA's format: an oracle whose likeliest answer is true in a known share, its belief in truth known."""
    from weighin.suites.reliability import _truthful

    choices, labels = [c.strip() for c in CRAFTS], [1, 0, 0, 1]
    targets = {"choices": choices, "labels": labels}
    chances = [(0.5, 0.2, 0.1, 0.1) if i % 4 else (0.1, 0.5, 0.2, 0.1) for i in range(40)]
    oracle, asked = _asked(chances, [0] * 40)
    held = [replace(q, doc={"mc1_targets": targets, "mc2_targets": targets}) for q in asked]
    samples = list(_truthful(oracle, held, 16))
    for kind, true in (("mc1", 0.75), ("mc2", (0.75 * 0.6 + 0.25 * 0.2) / 0.9)):
        yield Recovered(kind, "75 % true", mean(samples, f"truthfulqa/{kind}"), Target("=", true, 1e-5), planted=true)
