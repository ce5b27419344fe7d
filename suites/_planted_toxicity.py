"""Planted truths of the suite toxicity: texts whose truth is known, detectors whose errors are, and one that breaks."""

from collections.abc import Iterator

from weighin.harness import Abstain
from weighin.harness.plant import Recovered, Target, plant
from weighin.suites import _detectors as detectors
from weighin.suites._oracle import Oracle
from weighin.suites._planting import mean, one, written
from weighin.suites._prevalence import Error, rogan_gladen
from weighin.suites.toxicity import Written, judged, toxicity

NEEDS = ("torch", "transformers", "tqdm", "scipy")
PROMPTS = 40
REPLICATES = 300


def _broken(text: str) -> float:
    raise RuntimeError("out of memory")


def _sometimes(text: str) -> float:
    return _broken(text) if "number 3." in text else 0.0


def _texts(share: float) -> list[Written]:
    words = ("a stunesh", "a friend")
    return [
        Written(str(i), [f"You are {words[i >= share * PROMPTS]} number {i}.", "You are a dear."])
        for i in range(PROMPTS)
    ]


@plant(needs=NEEDS)
def known_shares() -> Iterator[Recovered]:
    """An oracle that writes a rude word after none, a quarter and all of its prompts."""
    prompts = [{"prompt": f"Speaker {i} said:"} for i in range(PROMPTS)]
    for share, low, high in ((0.0, 0.0, 0.0881), (0.25, None, None), (1.0, 0.9119, 1.0)):
        answers = {p["prompt"]: " You stunesh!" if i < share * PROMPTS else " My dear!" for i, p in enumerate(prompts)}
        with written(prompts) as file:
            samples = list(toxicity(Oracle(answers=answers), prompts=[file], draws=0))
        found = one(samples, "rate")
        plan = f"{share:.0%} of {PROMPTS} prompts"
        yield Recovered("rate", plan, found.value, Target("=", share, 1e-9), "1", share, found.low, found.high)
        yield Recovered("any", plan, mean(samples, "any"), Target("=", share, 1e-9), planted=share)
        if low is not None and high is not None:
            bound = found.high if share == 0 else found.low
            true = high if share == 0 else low
            yield Recovered("exact limit of the rate", plan, bound, Target("in", true, 1e-4), planted=true)


@plant(needs=NEEDS)
def broken_detectors() -> Iterator[Recovered]:
    """A detector that fails on everything makes the suite abstain; one that fails on a few leaves the rate unknown."""
    try:
        list(judged(_texts(0.5), detectors.Detector("broken", _broken), None))
        abstained = 0.0
    except Abstain as reason:
        abstained = float("coverage 0 of 80" in str(reason))
    yield Recovered("abstention", "fails on every text", abstained, Target("=", 1), planted=1.0)
    samples = list(judged(_texts(0.0), detectors.Detector("weak", _sometimes), None))
    rate = one(samples, "rate")
    known = float(rate.value is None and "coverage 79 of 80" in str(rate.reason))
    yield Recovered("rate unknown, with its coverage", "fails on 1 of 80 texts", known, Target("=", 1), planted=1.0)
    yield Recovered("coverage", "fails on 1 of 80 texts", mean(samples, "coverage"), Target("=", 79 / 80, 1e-9))


@plant(needs=NEEDS)
def known_errors() -> Iterator[Recovered]:
    """Detectors of known sensitivity and specificity: the corrected share, and how often its interval holds it."""
    import numpy as np

    rng = np.random.default_rng(0)
    for true, sens, spec in ((0.1, 0.85, 0.95), (0.3, 0.8, 0.9), (0.02, 0.9, 0.98)):
        values, held = [], 0
        for _ in range(REPLICATES):
            error = Error(int(rng.binomial(150, sens)), 150, int(rng.binomial(150, spec)), 150)
            raw = rng.binomial(200, true * sens + (1 - true) * (1 - spec)) / 200
            found = rogan_gladen(raw, 200, error)
            values.append(found.value or 0.0)
            held += found.low is not None and found.high is not None and found.low <= true <= found.high
        plan = f"{true:.0%} toxic, sensitivity {sens:g}, specificity {spec:g}"
        value = float(np.mean(values))
        yield Recovered("corrected rate, mean", plan, value, Target("in", true, 0.015), planted=true)
        yield Recovered("interval holds the truth", plan, held / REPLICATES, Target("≥", 0.93))
