"""Dominance against brute force: fronts, tolerances, hypervolume, knee."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from weighin.results.pareto import beats, hypervolume, knee, nondominated

# small whole numbers, so that ties are common
clouds = st.tuples(st.integers(0, 25), st.integers(2, 4)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=st.integers(-4, 4).map(float))
)
tolerances = st.lists(st.integers(0, 2).map(float), min_size=4, max_size=4).map(np.array)


def brute(points: np.ndarray) -> list[bool]:
    return [not any((q <= p).all() and (q < p).any() for q in points) for p in points]


@given(clouds)
def test_the_front_is_that_of_brute_force(points: np.ndarray) -> None:
    assert nondominated(points).tolist() == brute(points)


@pytest.mark.parametrize("objectives", [2, 3, 4, 6])
def test_a_large_front_is_that_of_brute_force(objectives: int) -> None:
    rng = np.random.default_rng(objectives)
    points = np.round(rng.normal(size=(400, objectives)), 1)
    assert nondominated(points).tolist() == brute(points)


@given(clouds, st.integers(0, 3))
def test_negating_an_objective_turns_its_direction(points: np.ndarray, axis: int) -> None:
    signs = np.ones(points.shape[1])
    signs[axis % points.shape[1]] = -1
    turned = points * signs
    expected = [not any((q * signs <= p * signs).all() and (q != p).any() for q in turned) for p in turned]
    assert nondominated(points).tolist() == expected


@given(clouds)
def test_equal_rows_stay_together(points: np.ndarray) -> None:
    mask = nondominated(np.concatenate([points, points]))
    assert mask[: len(points)].tolist() == mask[len(points) :].tolist() == nondominated(points).tolist()


def test_what_is_not_finite_has_no_place() -> None:
    for value in (np.nan, np.inf):
        with pytest.raises(ValueError, match="finite"):
            nondominated(np.array([[1.0, value], [2.0, 1.0]]))


def held(p: np.ndarray, q: np.ndarray, tolerance: np.ndarray) -> bool:
    """Whether p beats q, said plainly for whole numbers."""
    loss = [float(a - b) for a, b in zip(p, q, strict=True)]
    if any(a > t for a, t in zip(loss, tolerance, strict=True)) or not any(
        a < -t for a, t in zip(loss, tolerance, strict=True)
    ):
        return False
    strict = [a for a, t in zip(loss, tolerance, strict=True) if t == 0]
    return any(a < 0 for a in strict) or sum(a / t for a, t in zip(loss, tolerance, strict=True) if t > 0) < 0


@given(clouds, tolerances)
def test_a_front_with_tolerances_is_that_of_brute_force(points: np.ndarray, tolerance: np.ndarray) -> None:
    some = tolerance[: points.shape[1]]
    expected = [not any(held(q, p, some) for q in points) for p in points]
    assert nondominated(points, some).tolist() == expected
    assert len(points) == 0 or any(expected), "a front is never empty"


def test_a_difference_within_the_tolerance_counts_as_equal() -> None:
    points = np.array([[0.75, 2.0], [0.74, 1.0], [0.73, 1.0]])  # 0.75 - 0.74 is a hair more than 0.01
    assert nondominated(points * [-1, 1]).tolist() == [True, True, False]
    assert nondominated(points * [-1, 1], np.array([0.01, 0.0])).tolist() == [False, True, True]
    assert nondominated(points * [-1, 1], np.array([0.01, 1.0])).tolist() == [True, True, False]


def test_no_three_beat_each_other_in_a_circle() -> None:
    points, one = np.array([[0.0, 0.0, 0.0], [1.2, -0.6, -0.6], [0.6, 0.6, -1.2]]), np.ones(3)
    loss = points[:, None] - points[None]
    circle = (loss <= 1).all(axis=2) & (loss < -1).any(axis=2)
    assert circle[0, 1] and circle[1, 2] and circle[2, 0], "what the balance is there for"
    assert not beats(points, points, one).any()
    assert nondominated(points, one).all()


@given(clouds)
def test_the_hypervolume_counts_the_cells_that_are_dominated(points: np.ndarray) -> None:
    """On whole numbers the space is made of unit cells."""
    reference = np.full(points.shape[1], 3.0)
    grid = np.stack(np.meshgrid(*[np.arange(-4, 3)] * points.shape[1], indexing="ij"), axis=-1)
    cells = grid.reshape(-1, points.shape[1])
    covered = np.array([(points <= cell).all(axis=1).any() for cell in cells]) if len(points) else np.zeros(1)
    assert hypervolume(points, reference) == pytest.approx(covered.sum())


def test_the_knee_lies_farthest_from_the_chord() -> None:
    front = np.array([[0.0, 1.0], [0.1, 0.3], [0.5, 0.2], [1.0, 0.0]])
    assert knee(front) == 1
    assert knee(front * [1000, 0.001] + [5, -2]) == 1, "whatever the units"
    assert knee(front[::-1]) == 2
    bulge = np.array([[0.0, 1.0], [0.9, 0.9], [1.0, 0.0]])
    straight = np.array([[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]])
    for none in (bulge, straight, front[:2], np.array([[0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])):
        assert knee(none) is None
