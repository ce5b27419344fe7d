"""The test of drawn tokens: by hand, pooled, and on real assisted sampling."""

import math
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import chisquare

from weighin.adapters.speculate import speculate
from weighin.harness import Checkpoint
from weighin.harness.model import Loading, TransformersModel
from weighin.harness.reference import reference_path
from weighin.suites._lossless import chi_square
from weighin.suites.speculation import speculation


def test_without_pooling_it_is_pearsons() -> None:
    counts, shares = [18, 55, 27], [0.2, 0.5, 0.3]
    assert chi_square(counts, shares) == pytest.approx(chisquare(counts, [20, 50, 30]).pvalue)


def test_rare_tokens_are_pooled() -> None:
    counts, shares = [1, 2, 3, 44, 50], [0.01, 0.02, 0.03, 0.44, 0.5]
    assert chi_square(counts, shares) == pytest.approx(1.0), "1 + 2 + 3 in one cell, as expected"
    assert chi_square([3, 0, 3, 44, 50], shares) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="fewer than two cells"):
        chi_square([3, 3], [0.5, 0.5])


def test_what_was_never_to_come_counts() -> None:
    assert chi_square([45, 55, 1], [0.45, 0.55, 0.0]) == 0
    assert chi_square([45, 55, 0], [0.45, 0.55, 0.0]) == pytest.approx(1.0)


def test_assisted_sampling_is_tried_on_a_real_model(tmp_path: Path, one_thread: None) -> None:
    """The library's own sampler passes; one that always says the same token does not."""
    speculate(Checkpoint(reference_path("draft"), "parent"), tmp_path, method="lookup", block=2)
    model = TransformersModel(Checkpoint(tmp_path, "child"), {}, Loading(dtype="float32"))
    short = {"samples": 1, "prompt_tokens": 16, "new_tokens": 4, "warmup": 0, "draws": 300}
    assert sampling_p(model, **short) > 1e-3
    plain = model.module.generate

    def stuck(**asked: Any) -> Any:
        made = plain(**asked)
        made[:, 16] = made[0, 0]
        return made

    model.module.generate = stuck
    assert sampling_p(model, **short) < 1e-6


def sampling_p(model: TransformersModel, **params: Any) -> float:
    """The p-value that the suite gives, NaN where it gives none."""
    found = next(s for s in speculation(model, **params) if s.metric and s.metric.name == "sampling_p")
    return math.nan if found.value is None else found.value
