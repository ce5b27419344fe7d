"""The gate tried on its own data: how often it alarms where nothing changed, and passes what it must not.

The paired differences of a run's rules are replayed with random signs, one a cluster: then neither side is better, and
everything else (how items depend on each other, how often they flip, how wide the values spread) is as it was
measured. The same is done on a random half of the clusters, and with what was measured twice under one key. To see
unsafe passes, the judged side is made worse by exactly the margin: right answers are lost at random, numbers shifted.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from weighin.results.compare import Comparison, Refusal, metrics_of, missing, pair_sides
from weighin.results.difference import measure
from weighin.results.gate import ALPHA, Verdict, settle
from weighin.results.lookup import Side, matching, run_named, side, split_metric
from weighin.results.pairs import Pairs, pair
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
    """`alarms`: some gate rule failed though nothing had changed; `resplit` the same over a random half of the items,
    `rerun` over what was measured twice (None: nothing was, or to the same bit). `releases`: all passed. `unsafe`: for
    each rule, a pass at a drop of exactly the margin. `left_out` says which rules have nothing to replay, and why."""

    alarms: Rate
    resplit: Rate
    rerun: Rate | None
    releases: Rate
    unsafe: tuple[Rate, ...]
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class _Stage:
    """A rule with the data that is replayed, and two measurements of the judged side itself where there are two."""

    rule: Rule
    name: str
    pairs: Pairs
    found: Comparison
    twice: Pairs | None


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
    again = [(stage, stage.twice) for stage in stages if stage.twice is not None]
    rng = np.random.default_rng(seed)
    alarms = releases = resplit = rerun = 0
    unsafe = [0] * len(stages)
    for number in range(draws if stages else 0):
        equal = [_flipped(stage.pairs, rng) for stage in stages]
        outcomes = _outcomes(stages, equal)
        alarms += "fail" in outcomes
        releases += set(outcomes) == {"pass"}
        resplit += "fail" in _outcomes(stages, [_flipped(_half(stage.pairs, rng), rng) for stage in stages])
        rerun += "fail" in _outcomes([stage for stage, _ in again], [_flipped(twice, rng) for _, twice in again])
        for place, (stage, pairs) in enumerate(zip(stages, equal, strict=True)):
            unsafe[place] += _outcomes([stage], [_worsened(stage, pairs, rng)]) == ["pass"]
        progress(number + 1)
    total = max(draws, 1)
    return Replay(
        Rate("a gate rule fails", alarms, total),
        Rate("a gate rule fails", resplit, total),
        Rate("a gate rule fails", rerun, total) if again else None,
        Rate("all pass", releases, total),
        tuple(Rate(f"{s.name}: {s.rule}", count, total) for s, count in zip(stages, unsafe, strict=True)),
        left_out,
    )


def _outcomes(stages: Sequence[_Stage], data: Sequence[Pairs]) -> list[str]:
    """What the rules come to on such data, together."""
    return [each.outcome for each in settle([_open(stage, pairs) for stage, pairs in zip(stages, data, strict=True)])]


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
    return _Stage(rule, name, pairs, found, _twice(store, sides[1], metric))


def _twice(store: Store, who: Side, metric: tuple[str, str]) -> Pairs | None:
    """The judged side's measurement beside another one of the same key; None without one, or where it is the same."""
    own = str(who.cells[metric[0]].evaluation_id)
    rows = store.rows(
        """select other.evaluation_id from evaluations own join evaluations other using (evaluation_key)
           where own.evaluation_id = ? and other.evaluation_id <> own.evaluation_id and other.status = 'ok'
           order by other.started_at desc, other.evaluation_id limit 1""",
        [own],
    )
    found = pair(store, *metric, (str(rows[0]["evaluation_id"]), own)) if rows else None
    return found if isinstance(found, Pairs) and (found.a != found.b).any() else None


def _flipped(pairs: Pairs, rng: np.random.Generator) -> Pairs:
    """Both sides swapped in a random half of the clusters."""
    _, code = np.unique(pairs.clusters, return_inverse=True)
    swap = rng.integers(0, 2, size=code.max() + 1).astype(bool)[code.ravel()]
    return dataclasses.replace(pairs, a=np.where(swap, pairs.b, pairs.a), b=np.where(swap, pairs.a, pairs.b))


def _half(pairs: Pairs, rng: np.random.Generator) -> Pairs:
    """A random half of the clusters, with all their items."""
    names, code = np.unique(pairs.clusters, return_inverse=True)
    kept = rng.permutation(len(names))[: max(len(names) // 2, 2)]
    chosen = np.isin(code.ravel(), kept)
    clusters = [cluster for cluster, stays in zip(pairs.clusters, chosen, strict=True) if stays]
    return dataclasses.replace(
        pairs, a=pairs.a[chosen], b=pairs.b[chosen], weights=pairs.weights[chosen], clusters=clusters
    )


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
