"""The demo as a user runs it: the default spec on the embedded model, then again, then the verdict and the page."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from weighin.harness.spec import read_spec
from weighin.results.store import Store

WEIGHIN = [sys.executable, "-m", "weighin.harness.cli"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A directory in which `weighin run` has been run once, and what it printed."""
    place = tmp_path_factory.mktemp("demo")
    return place, command(place, "run").stdout


def command(place: Path, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WEIGHIN_")}
    done = subprocess.run([*WEIGHIN, *arguments], cwd=place, env=environment, capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def store(place: Path) -> Store:
    return Store(place / "weighin.duckdb")


def test_every_cell_is_measured_or_says_why_not(demo: tuple[Path, str]) -> None:
    spec = read_spec("default")
    rows = store(demo[0]).rows("select * from latest_scores")
    assert {(r["variant"], r["suite"]) for r in rows} == {(v, s) for v in spec.chains for s in spec.suites}
    assert {r["status"] for r in rows} <= {"ok", "abstained"}
    silent = {(r["variant"], r["suite"]) for r in rows if r["metric"] == "*"}
    # a base has no parent to be faithful to, and only one variant drafts
    undrafted = {(v, "speculation") for v in spec.chains if v != "drafted"}
    assert silent == {("base", "fidelity")} | undrafted, "a cell without any number"
    assert all(r["reason"] for r in rows if r["status"] == "abstained")
    for row in rows:
        assert row["status"] != "ok" or (row["value"] is not None and row["unit"] and row["n"] > 0)
        assert row["ci_low"] is None or row["ci_low"] <= row["value"] <= row["ci_high"]
        assert row["ci_low"] is not None or row["ci_reason"]


def test_the_view_has_the_columns_others_build_on(demo: tuple[Path, str]) -> None:
    wanted = "run_id variant variant_key suite metric unit better n value ci_low ci_high status source"
    row = store(demo[0]).rows("select * from scores limit 1")[0]
    assert set(wanted.split()) <= set(row)


def scores(place: Path, metric: str) -> dict[str, float]:
    rows = store(place).rows("select variant, value from latest_scores where suite || '.' || metric = ?", [metric])
    return {r["variant"]: r["value"] for r in rows}


def test_the_planted_truth_is_recovered(demo: tuple[Path, str]) -> None:
    place = demo[0]
    tuned = scores(place, "accuracy.world_tune_facts/acc")
    assert tuned["tuned"] > tuned["base"] + 0.15, "LoRA taught it the new people"
    kl = scores(place, "fidelity.kl_root")
    assert 0 < kl["int8"] < kl["nf4"]
    assert kl["small"] > kl["tuned"]
    disk = scores(place, "memory.disk")
    assert disk["gptq4"] < disk["int8"] < disk["base"] < disk["drafted"], "a draft is carried along"


def test_each_variant_is_what_its_label_says(demo: tuple[Path, str]) -> None:
    cards = {c["variant"]: c for c in store(demo[0]).rows("select * from variant_cards")}
    assert cards["int8"]["form"] == "packed" and "int8" in cards["int8"]["dtypes"]
    assert cards["nf4"]["form"] == "packed" and cards["nf4"]["memory_bytes"] < cards["base"]["memory_bytes"]
    assert cards["gptq4"]["form"] == "simulated", "transformers unpacks compressed-tensors at the first forward"
    assert 0.45 < cards["small"]["sparsity"] < 0.56, "the chain keeps the zeros"
    assert cards["base"]["distance"] is None
    assert all(c["distance"] > 0 for name, c in cards.items() if name not in ("base", "drafted"))
    assert cards["small"]["depth"] == 3 and cards["small"]["root_key"] == cards["base"]["variant_key"]


def test_simulated_and_modelled_figures_stay_out_of_fronts_and_gates(demo: tuple[Path, str]) -> None:
    rows = store(demo[0]).rows("select * from latest_scores where status = 'ok'")
    simulated = [r for r in rows if r["runtime"] and r["form"] == "simulated"]
    assert simulated and not any(r["eligible"] for r in simulated)
    energy = [r for r in rows if r["suite"] == "energy"]
    assert energy and all(r["source"] in ("counter", "modelled") for r in energy)
    assert not any(r["eligible"] for r in energy if r["source"] == "modelled")


def test_it_prints_tables_fronts_verdicts_and_the_way_to_the_page(demo: tuple[Path, str]) -> None:
    text = demo[1]
    for piece in ("world_facts/acc", "on the front", "PASS", "weighin board", "MiB", "abstained"):
        assert piece in text, piece
    assert max(len(line.rstrip()) for line in text.splitlines() if "[" not in line[:1]) <= 80


def test_a_second_run_measures_nothing(demo: tuple[Path, str]) -> None:
    place = demo[0]
    before = store(place).rows("select evaluation_id from evaluations order by all")
    again = command(place, "run").stdout
    assert "[1/" not in again, "no job at all"
    assert store(place).rows("select evaluation_id from evaluations order by all") == before
    assert "0 checkpoints to make, 0 of" in command(place, "plan").stdout


def test_the_page_opens_on_it(demo: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("streamlit", reason="the page needs streamlit: pip install 'weighin[board]'")
    from streamlit.testing.v1 import AppTest

    monkeypatch.setenv("WEIGHIN_STORE", str(store(demo[0]).path))
    page = AppTest.from_file(str(Path(__file__).parent.parent / "leaderboard" / "app.py"), default_timeout=120).run()
    assert not page.exception
    assert len(page.dataframe) >= 1
