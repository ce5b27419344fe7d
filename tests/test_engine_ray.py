"""A run on Ray is a run: the same keys and the same numbers, whatever becomes of the workers meanwhile."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from weighin.harness.engine import Engine
from weighin.harness.engine_local import Local
from weighin.harness.plan import make_plan
from weighin.harness.progress import Display
from weighin.harness.run import job_names, weigh
from weighin.harness.spec import parse_spec
from weighin.results.store import Store

pytestmark = [
    pytest.mark.usefixtures("test_plugins"),
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs ray: pip install '.[ray]'"),
]


@pytest.fixture
def cluster(test_plugins: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head without processors and two nodes with two each, as real processes; what they need is on their path."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(test_plugins), os.environ.get("PYTHONPATH", "")]))
    import ray
    from ray.cluster_utils import Cluster

    here = {"node_ip_address": "127.0.0.1"}
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **here})
    nodes = [made.add_node(num_cpus=2, **here) for _ in range(2)]
    yield made, nodes
    ray.shutdown()
    made.shutdown()


def carry_out(document: dict[str, Any], where: Path, engine: Engine) -> tuple[Store, str, bool]:
    store = Store(where)
    plan = make_plan(parse_spec(document), store)
    assert plan is not None
    with Display(Console(file=open(os.devnull, "w")), job_names(plan), {}) as display:
        run, ok = weigh(plan, store, display, engine)
    return store, run, ok


def numbers(store: Store) -> list[dict[str, Any]]:
    """Everything of a run that no clock and no chance decides."""
    return store.rows(
        """select c.label, c.suite, c.status, c.reason, e.evaluation_key, s.metric, s.item, s.rep, s.value
           from cells c left join evaluations e using (evaluation_id) left join samples s using (evaluation_id)
           order by all"""
    )


def test_both_engines_come_to_the_same(
    pico_dir: Path, cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what fails does, and alone: a suite that takes its process down, a stage that raises."""
    from weighin.harness.engine_ray import Ray

    document = {
        "base": str(pico_dir),
        "variants": {"half": "halve", "quarter": [{"from": "half"}, "halve"], "again": "halve", "bad": "explode"},
        "suites": {"count": None, "shy": None, "killed": None},
    }
    found = []
    for name, engine in (("local", Local()), ("ray", Ray(cluster[0].address))):
        monkeypatch.setenv("WEIGHIN_HOME", str(tmp_path / f"home-{name}"))
        store, run, ok = carry_out(document, tmp_path / f"{name}.duckdb", engine)
        assert not ok
        rows = numbers(store)
        for row in rows:
            row["reason"] = (row["reason"] or "").split(" (log:")[0]
        found.append(rows)
        assert store.rows("select status from runs where run_id = ?", [run]) == [{"status": "failed"}]
        assert store.rows("select count(*) as n from evaluations where status = 'ok'") == [{"n": 3}]
        parents = store.rows("select variant_key, parent_key, params from variants order by all")
        assert len(parents) == 3
        found.append(parents)
    assert found[0] == found[2] and found[1] == found[3]
    assert {row["status"] for row in found[0]} == {"ok", "abstained", "failed"}


def test_what_a_killed_worker_had_is_done_elsewhere(pico_dir: Path, cluster: Any, tmp_path: Path) -> None:
    """A whole node is killed while it measures: nothing is lost, and nothing is kept twice."""
    from weighin.harness.engine_ray import Ray

    trace = tmp_path / "trace"
    document = {
        "base": str(pico_dir),
        "variants": {f"v{n}": {"halve": {"factor": 0.5 + n / 10}} for n in range(3)},
        "suites": {"count": None, "slow": {"trace": str(trace)}},
    }
    code = f"""
import sys, time
from pathlib import Path
while not Path({str(trace)!r}).exists(): time.sleep(0.02)
import os, signal
os.kill(int(sys.argv[1]), signal.SIGKILL)
"""
    engine = Ray(cluster[0].address)
    chosen = max(cluster[1], key=lambda node: node.node_id)  # where work without a history goes first
    raylet = chosen.all_processes["raylet"][0].process.pid
    killer = subprocess.Popen([sys.executable, "-c", code, str(raylet)])
    store, _, ok = carry_out(document, tmp_path / "w.duckdb", engine)
    assert killer.wait() == 0
    assert ok
    cells = store.rows("select label, suite, status, evaluation_id from cells")
    assert len(cells) == 8 and {cell["status"] for cell in cells} == {"ok"}
    assert len({cell["evaluation_id"] for cell in cells}) == 8
    assert store.rows("select count(*) as n, count(distinct evaluation_key) as k from evaluations") == [
        {"n": 8, "k": 8}
    ]
    assert len(trace.read_text().split()) >= 5, "the cell in flight was not tried again"
    assert not os.path.exists(f"/proc/{raylet}") or _dead(raylet)


def _dead(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"


def test_work_that_takes_every_worker_down_is_given_up_and_said(cluster: Any) -> None:
    from weighin.harness.engine import Lost, Task, Wants
    from weighin.harness.engine_ray import Ray

    engine, said = Ray(cluster[0].address), list[str]()

    def poisoned() -> None:
        with pytest.raises(Lost, match="3 workers were lost with it"):
            engine.do(poison, Wants(), lambda *_: None)
        said.append("lost")

    def after() -> None:
        said.append(engine.do(sound, Wants(alone=True), lambda *_: None))

    engine.each([Task("poisoned", poisoned), Task("after", after, ("poisoned", "a task of another run"))])
    assert said == ["lost", "well"]


def poison(run: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def sound(run: Any) -> str:
    return "well"


def test_times_have_a_node_for_themselves(cluster: Any, tmp_path: Path) -> None:
    """Two that want to be alone and two that do not, on nodes of two processors each: no interval overlaps theirs."""
    from functools import partial

    from weighin.harness.engine import Task, Wants
    from weighin.harness.engine_ray import Ray

    engine, seen = Ray(cluster[0].address), list[tuple[bool, str, float, float]]()

    def step(alone: bool) -> None:
        node, began, ended = engine.do(busy, Wants(alone=alone), lambda *_: None)
        seen.append((alone, node, began, ended))

    engine.each([Task(f"t{n}", partial(step, n % 2 == 0)) for n in range(8)])
    assert len(seen) == 8
    for alone, node, began, ended in seen:
        if alone:
            others = [each for each in seen if each != (alone, node, began, ended) and each[1] == node]
            assert all(each[3] <= began or each[2] >= ended for each in others)


def busy(run: Any) -> tuple[str, float, float]:
    import ray

    began = time.monotonic()
    time.sleep(0.2)
    return ray.get_runtime_context().get_node_id(), began, time.monotonic()


def test_the_engine_is_asked_for_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    from weighin.harness.cli import main

    assert main(["run", "--address", "127.0.0.1:1"]) == 2
    assert "add --engine ray" in capsys.readouterr().err
