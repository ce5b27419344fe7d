"""What compressing must do to the reference model: the orderings that the methods' papers promise."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.measures import perplexity
from tests.shapes import plant_outliers
from weighin.adapters.awq import awq
from weighin.adapters.gptq import gptq
from weighin.adapters.prune import prune
from weighin.adapters.qat import qat
from weighin.adapters.rtn import rtn
from weighin.adapters.smoothquant import smoothquant
from weighin.harness.reference import reference_path

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.slow]
Make = Callable[..., Path]
W8A8: dict[str, Any] = {"bits": 8, "group_size": -1, "activations": 8}


@pytest.mark.parametrize(
    ("method", "pattern"),
    [
        ("wanda", "unstructured"),
        ("wanda", "4:8"),
        ("sparsegpt", "unstructured"),
        ("sparsegpt", "4:8"),
        ("sparsegpt", "2:4"),
    ],
)
def test_calibrated_pruning_beats_magnitude_at_half(make: Make, method: str, pattern: str) -> None:
    """Wanda in 2:4 is missing: there it is no better than magnitude, here (perplexity 1.926 against 1.924)."""
    base, params = reference_path("base"), {"sparsity": 0.5, "pattern": pattern}
    calibrated = make(prune, base, method=method, data="reference:calibration_text", samples=64, **params)
    assert perplexity(calibrated) < perplexity(make(prune, base, method="magnitude", **params))


@pytest.mark.parametrize("bits", [2, 3])
def test_gptq_beats_rounding_in_perplexity(make: Make, bits: int) -> None:
    base, data = reference_path("base"), "reference:calibration_text"
    assert perplexity(make(gptq, base, bits=bits, samples=32, data=data)) < perplexity(make(rtn, base, bits=bits))


def test_awq_beats_rounding_in_perplexity(make: Make) -> None:
    """At 3 bits. At 2 bits it does not, here: the scales are chosen block by block, as if all others were exact."""
    base, data = reference_path("base"), "reference:calibration_text"
    assert perplexity(make(awq, base, bits=3, data=data)) < perplexity(make(rtn, base, bits=3, symmetric=False))


def test_smoothquant_beats_plain_w8a8_in_perplexity_where_there_are_outliers(make: Make, tmp_path: Path) -> None:
    planted = plant_outliers(reference_path("base"), tmp_path / "planted")
    for how in ("rtn", "gptq"):
        child = make(smoothquant, planted, weights=how, samples=16, data="reference:calibration_text")
        assert perplexity(child) < perplexity(make(rtn, planted, **W8A8))


def test_qat_beats_rounding_in_perplexity_at_2_bits(make: Make) -> None:
    base = reference_path("base")
    plain = perplexity(make(rtn, base, bits=2))
    assert perplexity(make(qat, base, samples=128, data="reference:calibration_text")) < plain
    assert perplexity(make(qat, base, samples=64, data=None)) < plain
