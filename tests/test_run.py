"""The engine: what fails fails alone, what is held is not done again, a kill loses only the cell in flight."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from weighin.harness import checkpoints
from weighin.harness.plan import Plan, job_names, make_plan
from weighin.harness.progress import Display
from weighin.harness.run import weigh
from weighin.harness.spec import parse_spec
from weighin.results.store import Store

pytestmark = pytest.mark.usefixtures("test_plugins")


def planned(document: dict[str, Any], **options: Any) -> Plan:
    plan = make_plan(parse_spec(document), store(), **options)
    assert plan is not None
    return plan


def store() -> Store:
    return Store(os.environ["WEIGHIN_STORE"])


def carry_out(document: dict[str, Any], **options: Any) -> tuple[str, bool]:
    plan = planned(document, **options)
    with Display(Console(file=open(os.devnull, "w")), job_names(plan), {}) as display:
        return weigh(plan, store(), display)


def states(run: str) -> dict[tuple[str, str], tuple[str, str | None]]:
    rows = store().rows("select label, suite, status, reason from cells where run_id = ?", [run])
    return {(r["label"], r["suite"]): (r["status"], r["reason"]) for r in rows}


def test_variants_are_made_measured_and_kept(pico_dir: Path) -> None:
    document = {
        "base": str(pico_dir),
        "variants": {"half": "halve", "quarter": [{"from": "half"}, "halve"], "again": "halve"},
        "suites": {"count": None},
    }
    run, ok = carry_out(document)
    assert ok
    assert set(states(run).values()) == {("ok", None)}
    links = {link.key: link for chain in planned(document).chains.values() for link in chain}
    assert len(links) == 2, "a shared prefix is one checkpoint"
    rows = {r["variant_key"]: r for r in store().rows("select * from variants")}
    assert len(rows) == 3 and {r["stage"] for r in rows.values()} == {None, "halve"}
    for key, link in links.items():
        assert rows[key]["parent_key"] == link.parent and rows[key]["params"] == {"factor": 0.5}
        assert rows[key]["made_seconds"] > 0 and rows[key]["made_peak_bytes"] > 2**20
    identities = store().rows("select * from identities join variants using (variant_key) order by depth")
    assert [i["distance"] for i in identities] == [None, pytest.approx(0.5), pytest.approx(0.5)]
    assert {i["form"] for i in identities} == {"dense"}
    scores = store().rows("select * from scores where run_id = ?", [run])
    assert {s["value"] for s in scores} == {sum(identities[0]["dtypes"].values()) - _buffers(identities[0])}
    evaluations = store().rows("select count(*) as n from evaluations")
    assert evaluations[0]["n"] == 3, "two labels of one checkpoint are measured once"


def _buffers(identity: dict[str, Any]) -> int:
    return int(sum(identity["dtypes"].values()) - identity["parameters"])


def test_a_second_run_does_nothing(pico_dir: Path) -> None:
    document = {"base": str(pico_dir), "variants": {"half": "halve"}, "suites": {"count": None, "shy": None}}
    carry_out(document)
    before = store().rows("select evaluation_id from evaluations order by all")
    assert job_names(planned(document)) == [], "an abstention under an equal key is an answer, too"
    run, ok = carry_out(document)
    assert ok and store().rows("select evaluation_id from evaluations order by all") == before
    assert {r["reused"] for r in store().rows("select reused from cells where run_id = ?", [run])} == {True}
    assert states(run)["half", "shy"] == ("abstained", "nothing to see here")
    assert store().rows("select count(*) as n from scores where run_id = ?", [run])[0]["n"] == 4


def test_again_measures_anew(pico_dir: Path) -> None:
    document = {"base": str(pico_dir), "suites": {"count": None, "shy": None}}
    carry_out(document)
    carry_out(document, again=["count"])
    rows = store().rows("select suite, count(*) as n from evaluations group by suite order by suite")
    assert rows == [{"suite": "count", "n": 2}, {"suite": "shy", "n": 1}]


def test_a_deleted_checkpoint_is_not_made_again_for_nothing(pico_dir: Path) -> None:
    document = {"base": str(pico_dir), "variants": {"half": "halve"}, "suites": {"count": None}}
    carry_out(document)
    shutil.rmtree(checkpoints.home() / "checkpoints")
    assert job_names(planned(document)) == []
    document["suites"] = {"count": None, "crash": None}
    assert sorted(job_names(planned(document))) == ["crash", "crash", "halve"]


@pytest.mark.parametrize(
    ("stage", "reason"),
    [
        ("explode", "stage explode failed: RuntimeError: the fuse was short"),
        ("vanish", "stage vanish failed: its process was killed by SIGKILL"),
        ("idle", "stage idle failed: stage idle wrote nothing"),
        ("copy", "stage copy failed: its weights equal its parent's: the stage changed nothing"),
    ],
)
def test_a_stage_that_fails_fails_its_variants_only(pico_dir: Path, stage: str, reason: str) -> None:
    run, ok = carry_out(
        {
            "base": str(pico_dir),
            "variants": {"bad": stage, "worse": [{"from": "bad"}, "halve"], "good": "halve"},
            "suites": {"count": None},
        }
    )
    assert not ok
    found = states(run)
    assert found["base", "count"][0] == found["good", "count"][0] == "ok"
    for label in ("bad", "worse"):
        status, said = found[label, "count"]
        assert status == "failed" and said is not None and said.startswith(reason)
    assert not list((checkpoints.home() / "checkpoints").glob(".making-*")), "nothing half-made stays"
    rows = store().rows("select variant, status, reason from scores where run_id = ? and status = 'failed'", [run])
    assert {r["variant"] for r in rows} == {"bad", "worse"}
    assert store().rows("select status from runs") == [{"status": "failed"}]


def test_a_suite_that_fails_fails_its_cell_only(pico_dir: Path) -> None:
    suites = ["crash", "killed", "greedy", "silent", "twice", "shy", "count"]
    run, ok = carry_out({"base": str(pico_dir), "suites": dict.fromkeys(suites)})
    found = {suite: state for (_, suite), state in states(run).items()}
    assert not ok
    assert found["count"] == ("ok", None)
    assert found["shy"][0] == "abstained"
    assert {found[s][0] for s in ("crash", "killed", "greedy", "silent", "twice")} == {"failed"}
    assert found["crash"][1] == "ValueError: no such luck"
    assert "killed by SIGKILL" in str(found["killed"][1])
    assert found["greedy"][1] == "out of memory"
    assert found["silent"][1] == "suite silent yielded no sample"
    assert "two samples" in str(found["twice"][1])
    logs = {r["suite"]: r["log"] for r in store().rows("select suite, log from cells where run_id = ?", [run])}
    assert "no such luck" in Path(logs["crash"]).read_text()
    assert sorted(job_names(planned({"base": str(pico_dir), "suites": dict.fromkeys(suites)}))) == sorted(
        s for s in suites if found[s][0] == "failed"
    ), "a failure is tried again, an abstention is not"


def test_the_manifest_tells_how_a_checkpoint_was_made(pico_dir: Path) -> None:
    document = {"base": str(pico_dir), "variants": {"half": "halve"}, "suites": {"count": None}}
    carry_out(document)
    (link,) = planned(document).chains["half"]
    found = checkpoints.find(link.key)
    assert found is not None
    made = json.loads((found.path / "weighin.json").read_text())
    assert made["key"] == link.key and made["parent"] == link.parent and made["stage"] == "halve"
    assert made["identity"]["distance"] == pytest.approx(0.5)


def plugged(test_plugins: Path) -> dict[str, str]:
    """The environment of a process that finds the tests' plugins."""
    return {**os.environ, "PYTHONPATH": str(test_plugins)}


def in_its_second_cell(pico_dir: Path, tmp_path: Path, test_plugins: Path) -> tuple[subprocess.Popen[bytes], Path]:
    """A run whose first cell is kept and whose second has begun, and the file that the second writes to."""
    said, trace, spec = tmp_path / "said", tmp_path / "trace", tmp_path / "spec.yaml"
    document = {
        "base": str(pico_dir),
        "variants": {"half": "halve"},
        "suites": {"count": None, "slow": {"trace": str(trace)}},
    }
    spec.write_text(json.dumps(document))
    command = [sys.executable, "-m", "weighin.harness.cli", "run", str(spec)]
    with said.open("w") as output:
        process = subprocess.Popen(
            command, env={**plugged(test_plugins), "PYTHONUNBUFFERED": "1"}, stdout=output, stderr=subprocess.DEVNULL,
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # which who starts the tests may ignore
        )  # fmt: skip
    while not (trace.is_file() and trace.read_text() and "base · count" in said.read_text(encoding="utf-8")):
        assert process.poll() is None
        time.sleep(0.05)
    return process, trace


def test_a_killed_run_loses_the_cell_in_flight_and_nothing_else(
    pico_dir: Path, tmp_path: Path, test_plugins: Path
) -> None:
    process, trace = in_its_second_cell(pico_dir, tmp_path, test_plugins)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = store().rows("select suite, status, evaluation_id from evaluations")
    assert [(r["suite"], r["status"]) for r in kept] == [("count", "ok")], "what was done is kept, whole"
    assert store().rows("select status from runs") == [{"status": "running"}]
    child = Path("/proc") / trace.read_text().split()[0]
    while child.exists():  # the worker notices that its caller is gone; bounded by pytest's timeout
        time.sleep(0.1)
    again = subprocess.run(process.args, env=plugged(test_plugins), capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    rows = store().rows("select suite, count(*) as n from evaluations group by suite order by suite")
    assert rows == [{"suite": "count", "n": 2}, {"suite": "slow", "n": 2}], "nothing twice, nothing lost"
    assert kept[0]["evaluation_id"] in {
        r["evaluation_id"] for r in store().rows("select evaluation_id from evaluations")
    }
    assert not list((checkpoints.home() / "checkpoints").glob(".making-*"))


def test_a_run_stopped_by_hand_ends_and_says_so(pico_dir: Path, tmp_path: Path, test_plugins: Path) -> None:
    process, _ = in_its_second_cell(pico_dir, tmp_path, test_plugins)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    assert store().rows("select status from runs") == [{"status": "failed"}]
    cells = store().rows("select label, suite, status, reason from cells order by label, suite")
    assert [(row["status"], row["reason"]) for row in cells if row["suite"] == "slow"] == [
        ("failed", "not measured: stopped by hand")
    ] * 2
    assert ("base", "count", "ok") in [(row["label"], row["suite"], row["status"]) for row in cells]
