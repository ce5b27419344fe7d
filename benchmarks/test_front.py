"""What a Pareto front costs: 10,000 variants in 4 objectives, and 200 bootstrap draws of it."""

from typing import Any

import numpy as np
import pytest
from tests.objectives import MEAN, SHARES, counted, objective, points

from weighin.results.exclusion import excluded
from weighin.results.objectives import Objective
from weighin.results.pareto import nondominated
from weighin.results.stability import drawn, stability

VARIANTS, ITEMS = 10_000, 300


def objectives() -> list[Objective]:
    """Two shares, a mean and bytes; the items are of like difficulty for all variants."""
    rng = np.random.default_rng(0)
    traits = rng.normal(size=(VARIANTS, 3))
    scores = [rng.normal(size=(ITEMS, 1)) + rng.normal(size=(ITEMS, VARIANTS)) + traits[:, k] for k in range(3)]
    shares = [objective(SHARES, scores[k] > 0, method="shares") for k in (0, 1)]
    return [*shares, objective(MEAN, -scores[2]), counted(rng.uniform(1e6, 1e9, size=VARIANTS))]


def cloud(kind: str) -> Any:
    """Points where few are on the front, and where all are."""
    rng = np.random.default_rng(0)
    if kind == "few on it":
        return rng.uniform(size=(VARIANTS, 4))
    ray = np.abs(rng.normal(size=(VARIANTS, 4)))
    return -ray / np.linalg.norm(ray, axis=1, keepdims=True)


@pytest.mark.parametrize("kind", ["few on it", "all on it"])
def test_the_front(benchmark: Any, kind: str) -> None:
    given = cloud(kind)
    assert benchmark(nondominated, given).any()


def test_the_front_with_tolerances(benchmark: Any) -> None:
    assert benchmark(nondominated, cloud("few on it"), np.full(4, 0.01)).any()


def test_200_draws_and_the_front_of_each(benchmark: Any) -> None:
    given = objectives()
    share = benchmark.pedantic(lambda: stability(drawn(given, 200), np.zeros(4)), rounds=3)
    assert share.shape == (VARIANTS,) and share.max() > 0.9


def test_who_is_confidently_dominated(benchmark: Any) -> None:
    given = objectives()
    found = benchmark.pedantic(lambda: excluded(given, points(given)), rounds=1)
    assert len(found) == VARIANTS
