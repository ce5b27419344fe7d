"""Who is confidently dominated: the tests behind it are those of `compare` and of the gate, and the front is kept."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.objectives import MEAN, SHARES, counted, objective, points
from tests.stores import DISK, KL, PERPLEXITY, fill, numbers, shares
from weighin.results.compare import compare
from weighin.results.exclusion import domination, excluded
from weighin.results.front import View, front
from weighin.results.gate import Rule, judge
from weighin.results.pareto import nondominated
from weighin.results.records import Sample

ALL = np.arange(12)


def latent(rng: np.random.Generator, n: int, means: np.ndarray, shared: float = 0.7) -> np.ndarray:
    """Normal scores (item, variant) whose items are of like difficulty for all."""
    noise = shared**0.5 * rng.normal(size=(n, 1)) + (1 - shared) ** 0.5 * rng.normal(size=(n, len(means)))
    return means + noise


def weighed(kind: str, n: int = 60, variants: int = 5) -> dict[str, list[Sample]]:
    """Samples of several variants of one metric, by label; those named first are the better ones."""
    rng = np.random.default_rng(len(kind))
    scores = latent(rng, n, np.linspace(0.8, -0.6, variants))
    size = 10 if "few" in kind else 3
    groups = [f"c{i // size}" if "clustered" in kind else None for i in range(n)]
    weights = rng.integers(1, 5, size=n) if "weighted" in kind else np.ones(n)
    if "shares" in kind:
        return {f"v{j}": shares((scores[:, j] > 0).astype(int), clusters=groups) for j in range(variants)}
    metric = PERPLEXITY if "perplexity" in kind else KL
    return {
        f"v{j}": [
            Sample(f"i{i}", 3.0 - v, metric, weight=float(w), cluster=g)
            for i, (v, w, g) in enumerate(zip(scores[:, j], weights, groups, strict=True))
        ]
        for j in range(variants)
    }


KINDS = ("shares", "clustered shares", "means", "clustered weighted means", "weighted perplexity")


@pytest.mark.parametrize("kind", KINDS)
def test_each_p_is_that_of_compare(kind: str, tmp_path: Path) -> None:
    """Those that come first are smaller as well, so the p of a pair is that of the one uncertain metric."""
    samples = weighed(kind)
    grid = {
        label: {"s": each, "memory": numbers([1000.0 + i], DISK)} for i, (label, each) in enumerate(samples.items())
    }
    store = fill(tmp_path / "w.duckdb", grid)
    name = f"s.{next(iter(samples.values()))[0].metric.name}"  # type: ignore[union-attr]
    rows = {row.variant: row for row in front(store, ("memory.disk", name)).rows}
    best = {}
    for j, loser in enumerate(samples):
        tried = {}
        for winner in list(samples)[:j]:
            found = next(c for c in compare(store, winner, loser).comparisons if c.suite == "s")
            assert found.p_worse is not None
            tried[winner] = found.p_worse
        best[loser] = min(tried.values(), default=1.0)
        row = rows[loser]
        if best[loser] >= 0.05:
            assert row.place in ("on", "possibly") and row.p is None
        else:
            assert row.place == "dominated"
            assert row.p == pytest.approx(tried[row.by[0]], rel=1e-9, abs=1e-15)
    assert rows["v0"].place == "on" and min(best.values()) < 0.05


@pytest.mark.parametrize("kind", ["shares", "clustered shares", "few clustered shares", "weighted perplexity"])
def test_with_a_tolerance_each_verdict_is_that_of_the_gate(kind: str, tmp_path: Path) -> None:
    """A smaller variant dominates a larger one where the gate would let it pass with the tolerance as its margin."""
    samples = weighed(kind, n=150)
    grid = {
        label: {"s": each, "memory": numbers([2000.0 - i], DISK)} for i, (label, each) in enumerate(samples.items())
    }
    store = fill(tmp_path / "w.duckdb", grid)
    name = f"s.{next(iter(samples.values()))[0].metric.name}"  # type: ignore[union-attr]
    labels, seen = list(samples), set()
    for epsilon in (0.1, 0.3, 0.6):
        rows = {row.variant: row for row in front(store, ("memory.disk", name), view=View({name: epsilon})).rows}
        rules = [Rule(name, small, label, epsilon) for i, label in enumerate(labels) for small in labels[i + 1 :]]
        judged = {verdict.rule.against for verdict in judge(store, rules) if verdict.outcome == "pass"}
        for label in labels:
            passed = label in judged
            assert (rows[label].place == "dominated") == passed, (epsilon, label)
            seen.add(passed)
    assert seen == {True, False}


def test_better_by_more_than_the_tolerance_must_be_shown_somewhere() -> None:
    """Two equal variants of equal size: neither is shown to be better by more than the tolerance."""
    rng = np.random.default_rng(0)
    first, second = replace(MEAN, epsilon=0.5), replace(MEAN, metric="other", epsilon=0.5)
    far = np.array([0.0, 0.0, 2.0])
    made = [objective(axis, latent(rng, 300, far)) for axis in (first, second)]
    found = excluded(made, points(made))
    assert found[0] is None and found[1] is None and found[2] is not None
    # a known size that is smaller is enough, one that is larger speaks against everybody else
    sized = [*made, counted([2.0, 1.0, 3.0])]
    assert [None if f is None else f[0] for f in excluded(sized, points(sized))] == [1, None, 1]


def test_who_is_excluded_is_whom_any_pair_excludes() -> None:
    """Rivals are tried in two rounds, the front first; whoever is excluded is the same, and a front row is named."""
    rng = np.random.default_rng(5)
    for _ in range(20):
        means = rng.uniform(-0.4, 0.4, size=(12, 2))
        made = [objective(replace(MEAN, metric=f"m{k}"), latent(rng, 80, means[:, k])) for k in range(2)]
        p = domination(made, points(made), ALL, ALL)
        found = excluded(made, points(made))
        assert [each is not None for each in found] == (p.min(axis=0) < 0.05).tolist()
        on = nondominated(points(made))
        for j, each in enumerate(found):
            if each is not None:
                assert p[each[0], j] == pytest.approx(each[1]) and each[1] < 0.05
                assert not on[j] and (on[each[0]] or p[on, j].min() >= 0.05)


def test_an_objective_that_nothing_speaks_for_excludes_nobody() -> None:
    rng = np.random.default_rng(1)
    made = [objective(MEAN, latent(rng, 300, np.array([0.0, 3.0])))]
    both = [*made, objective(replace(MEAN, metric="tpot"), latent(rng, 300, np.array([0.0, 3.0])), method=None)]
    assert excluded(made, points(made))[1] is not None
    assert excluded(both, points(both)) == [None, None]


def test_what_was_measured_otherwise_is_not_held_against() -> None:
    rng = np.random.default_rng(1)
    made = objective(MEAN, latent(rng, 300, np.array([0.0, 3.0, 3.0])))
    apart = replace(made, kinds=np.array([0, 1, 0]))
    found = excluded([apart], points([apart]))
    assert found[1] is None and found[2] is not None


def planted(rng: np.random.Generator, n: int = 300, variants: int = 20) -> tuple[list, np.ndarray]:  # type: ignore[type-arg]
    """Two shares and a loss on paired items, and the true front of their true values."""
    from scipy import special

    traits = rng.uniform(-0.5, 0.5, size=(variants, 3))
    first, second = ((latent(rng, n, traits[:, k]) > 0).astype(float) for k in (0, 1))
    made = [
        objective(SHARES, first, method="shares"),
        objective(replace(SHARES, metric="other"), second, method="shares"),
        objective(MEAN, latent(rng, n, -traits[:, 2])),
    ]
    true = np.column_stack([-special.ndtr(traits[:, 0]), -special.ndtr(traits[:, 1]), -traits[:, 2]])
    return made, nondominated(true)


def test_at_300_items_the_true_front_is_kept() -> None:
    """Recall of the true front is at least .95, where the front of the figures alone has far less."""
    rng = np.random.default_rng(300)
    kept = figures = size = dropped = others = 0
    for _ in range(60):
        made, true = planted(rng)
        out = np.array([each is not None for each in excluded(made, points(made))])
        on = nondominated(points(made))
        kept, figures, size = kept + int((true & ~out).sum()), figures + int((true & on).sum()), size + int(true.sum())
        dropped, others = dropped + int((~true & out).sum()), others + int((~true).sum())
        assert not (on & out).any()
    assert kept / size >= 0.95
    assert figures / size < kept / size - 0.03
    assert dropped / others > 0.3, "who keeps everybody has a perfect recall, too"


def test_an_unchanged_variant_is_rarely_excluded() -> None:
    """Two variants alike in every objective: one is called dominated far below 5 %, as all objectives must agree."""
    rng = np.random.default_rng(2)
    alarms = 0
    for _ in range(400):
        made = [objective(replace(MEAN, metric=f"m{k}"), latent(rng, 100, np.zeros(2))) for k in range(2)]
        alarms += sum(each is not None for each in excluded(made, points(made)))
    assert alarms <= 400 * 2 * 0.01
