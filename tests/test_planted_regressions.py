"""Regressions planted into the reference model are blocked from the spec to the exit code; what is unchanged passes."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from weighin.harness import cli
from weighin.results.store import Store

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("test_plugins")]

BASE = {"model": "reference:base", "dtype": "float32"}
TURNS = {"requests": 6, "new_tokens": 16, "blocks": 100, "rounds": 3}
"""Enough turns to tell 5 % from nothing on a machine that others use, too."""


def released(tmp_path: Path, stage: Any, suites: dict[str, Any], rules: list[dict[str, Any]]) -> tuple[int, list[str]]:
    """Exit code of the gate on a release of the reference model, and what it said of each rule."""
    spec = tmp_path / "release.yaml"
    judged = [{"variant": "release", **rule} for rule in rules]
    spec.write_text(yaml.safe_dump({"base": BASE, "variants": {"release": stage}, "suites": suites, "gate": judged}))
    assert cli.main(["run", str(spec)]) == 0
    code = cli.main(["gate", str(spec)])
    rows = Store(os.environ["WEIGHIN_STORE"]).rows(
        "select why from verdicts qualify rank() over (order by judged_at desc, judgement_id) = 1 order by position"
    )
    return code, [row["why"] for row in rows]


QUALITY: dict[str, Any] = {"accuracy": {"tasks": ["world_facts"]}, "fidelity": {"samples": 24, "limit": 50}}
KEPT = [
    {"metric": "accuracy.world_facts/acc", "margin": 0.02},
    {"metric": "fidelity.kl_root", "limit": 0.001},
]


def test_three_bits_passed_off_as_the_release_are_blocked(tmp_path: Path) -> None:
    code, why = released(tmp_path, {"rtn": {"bits": 3, "group_size": 128}}, QUALITY, KEPT)
    assert code == 1, why


def test_a_release_slowed_by_five_per_cent_is_blocked(tmp_path: Path) -> None:
    """Three more neurons for every ten, all of them zero: the same answers, a few per cent more work."""
    rules = [*KEPT, {"metric": "latency.cpu_ratio_parent", "margin": 0.01}]
    code, why = released(tmp_path, {"widen": {"factor": 0.3}}, {**QUALITY, "latency": TURNS}, rules)
    assert code == 1, why
    values = Store(os.environ["WEIGHIN_STORE"]).rows(
        "select value from scores where variant = 'release' and metric = 'cpu_ratio_parent'"
    )
    assert 1.01 < values[0]["value"] < 1.12, "what was planted is about 5 %"


def test_an_unchanged_rebuild_passes(tmp_path: Path) -> None:
    """The same neurons in another order: other bytes, the same model, the same speed."""
    rules = [*KEPT, {"metric": "latency.cpu_ratio_parent", "margin": 0.05}, {"metric": "memory.disk", "margin": "1%"}]
    code, why = released(tmp_path, "reorder", {**QUALITY, "latency": TURNS, "memory": {}}, rules)
    assert code == 0, why
