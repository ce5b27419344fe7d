"""The gate tried on its own data: how often it alarms where nothing changed, and passes what it must not.

The paired differences of a run's rules are replayed with random signs, one a cluster: then neither side is better, and
everything else (how items depend on each other, how often they flip, how wide the values spread) is as it was
measured. To see unsafe passes, the judged side is made worse by exactly the margin: right answers are lost at random,
numbers are shifted.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from weighin.results.compare import Comparison, Refusal, metrics_of, missing, pair_sides
from weighin.results.difference import measure
from weighin.results.gate import ALPHA, Verdict, settle
from weighin.results.lookup import Side, matching, run_named, side, split_metric
from weighin.results.pairs import Pairs
from weighin.results.rules import Rule
from weighin.results.statistics import Floats, Interval, clopper_pearson
from weighin.results.store import Store
from weighin.results.weighing import allowed, compared

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Rate:
    """How often something happened in so many replays, with its 95 % limits (Clopper & Pearson 1934)."""

    what: str
    count: int
    draws: int

    @property
    def value(self) -> float:
        return self.count / self.draws

    @property
    def interval(self) -> Interval:
        return clopper_pearson(self.count, self.draws)


@dataclass(frozen=True)
class Replay:
    """`alarms`: some gate rule failed though nothing had changed. `releases`: all passed then. `unsafe`: for each rule,
    a pass at a drop of exactly the margin. `left_out` says which rules have nothing to replay, and why."""

    alarms: Rate
    releases: Rate
    unsafe: tuple[Rate, ...]
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class _Stage:
    """A rule with the data that is replayed."""

    rule: Rule
    name: str
    pairs: Pairs
    found: Comparison


def replay(
    store: Store, rules: Sequence[Rule], run: str | None = None, *, draws: int = 2000, seed: int = 0,
    progress: Progress = lambda done: None,
) -> Replay:  # fmt: skip
    """Replay the gate rules of a run (default: the newest) so many times."""
    with store.snapshot() as held:
        home = run_named(held, run)
        found = [each for rule in rules if rule.role == "gate" for each in _staged(held, rule, home)]
    stages = [each for each in found if isinstance(each, _Stage)]
    left_out = tuple(each for each in found if isinstance(each, str))
    rng = np.random.default_rng(seed)
    alarms = releases = 0
    unsafe = [0] * len(stages)
    for number in range(draws if stages else 0):
        equal = [_flipped(stage.pairs, rng) for stage in stages]
        verdicts = settle([_open(stage, pairs) for stage, pairs in zip(stages, equal, strict=True)])
        alarms += any(verdict.outcome == "fail" for verdict in verdicts)
        releases += all(verdict.outcome == "pass" for verdict in verdicts)
        for place, (stage, pairs) in enumerate(zip(stages, equal, strict=True)):
            (verdict,) = settle([_open(stage, _worsened(stage, pairs, rng))])
            unsafe[place] += verdict.outcome == "pass"
        progress(number + 1)
    rates = [Rate(f"{s.name}: {s.rule}", count, max(draws, 1)) for s, count in zip(stages, unsafe, strict=True)]
    return Replay(
        Rate("a gate rule fails", alarms, max(draws, 1)),
        Rate("all pass", releases, max(draws, 1)),
        tuple(rates),
        left_out,
    )


def _staged(store: Store, rule: Rule, home: str) -> list["_Stage | str"]:
    if rule.limit is not None:
        return [f"{rule.metric}: {rule}: a limit compares nothing that could be swapped"]
    sides = side(store, rule.against, home), side(store, rule.variant, home)
    suite, metric = split_metric(rule.metric)
    absent = [why for who in sides if (why := missing(who, suite))]
    if absent:
        return [f"{rule.metric}: {'; '.join(absent)}"]
    return [_of_metric(store, rule, sides, (suite, name)) for name in matching(metric, metrics_of(store, sides, suite))]


def _of_metric(store: Store, rule: Rule, sides: tuple[Side, Side], metric: tuple[str, str]) -> "_Stage | str":
    name = ".".join(metric)
    pairs = pair_sides(store, *sides, metric)
    if isinstance(pairs, Refusal):
        return f"{name}: {pairs.reason}"
    if pairs.score_a["beside"] is not None:
        return f"{name}: measured beside its {pairs.score_a['beside']}; `weighin calibrate` tries that instrument"
    found = measure(pairs)
    if found.caveat is not None or found.method == "counted":
        return f"{name}: {found.caveat or 'counted, which has no error'}"
    return _Stage(rule, name, pairs, found)


def _flipped(pairs: Pairs, rng: np.random.Generator) -> Pairs:
    """Both sides swapped in a random half of the clusters."""
    _, code = np.unique(pairs.clusters, return_inverse=True)
    swap = rng.integers(0, 2, size=code.max() + 1).astype(bool)[code.ravel()]
    return dataclasses.replace(pairs, a=np.where(swap, pairs.b, pairs.a), b=np.where(swap, pairs.a, pairs.b))


def _worsened(stage: _Stage, pairs: Pairs, rng: np.random.Generator) -> Pairs:
    """The judged side made worse by exactly the margin, in expectation."""
    margin = allowed(stage.rule, stage.found)
    b: Floats = pairs.b.copy()
    lower = pairs.score_a["better"] == "lower"
    if stage.found.flips_worse is not None:
        good = b == (0.0 if lower else 1.0)
        lost = good & (rng.random(len(b)) < margin * len(b) / max(int(good.sum()), 1))
        b[lost] = 1.0 - b[lost]
    else:
        b += margin if lower else -margin
    return dataclasses.replace(pairs, b=b)


def _open(stage: _Stage, pairs: Pairs) -> Verdict:
    """The rule's verdict before it is settled."""
    return Verdict(stage.rule, stage.name, "inconclusive", "", compared([pairs], stage.rule, 1 - ALPHA))
