"""A run on Ray is a run: the same keys and the same numbers, whatever becomes of the workers meanwhile."""

import contextlib
import importlib.util
import os
import signal
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.plugins import write_package
from weighin.harness.cli import main
from weighin.harness.engine import Engine, Lost, Task, Wants
from weighin.harness.engine_local import Local
from weighin.harness.engine_ray import LOOPBACK, Ray
from weighin.harness.plan import job_names, make_plan
from weighin.harness.progress import Display
from weighin.harness.run import weigh
from weighin.harness.spec import parse_spec
from weighin.results.store import Store

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="needs ray: pip install -c constraints.txt 'weighin[ray]'"
)
NODE = {"node_ip_address": LOOPBACK, "object_store_memory": 80 << 20}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A head without processors and two nodes with two each, real processes that have the tests' plugins too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        plugins = str(write_package(tmp_path_factory.mktemp("site")))
        patch.syspath_prepend(plugins)
        patch.setenv("PYTHONPATH", os.pathsep.join([plugins, os.environ["PYTHONPATH"]]))
        import ray
        from ray.cluster_utils import Cluster

        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **NODE})
        for _ in range(2):
            made.add_node(num_cpus=2, **NODE)
        yield made
        ray.shutdown()
        made.shutdown()


def carry_out(document: dict[str, Any], where: Path, engine: Engine) -> tuple[Store, str, bool]:
    store = Store(where)
    plan = make_plan(parse_spec(document), store)
    assert plan is not None
    with Display(Console(file=open(os.devnull, "w")), job_names(plan), {}) as display:
        run, ok = weigh(plan, store, display, engine=engine)
    return store, run, ok


def numbers(store: Store) -> list[dict[str, Any]]:
    """Everything of a run that no clock and no chance decides."""
    rows = store.rows(
        """select c.label, c.suite, c.status, c.reason, e.evaluation_key, s.metric, s.item, s.rep, s.value, s.weight
           from cells c left join evaluations e using (evaluation_id) left join samples s using (evaluation_id)
           order by all"""
    )
    return [{**row, "reason": (row["reason"] or "").split(" (log:")[0]} for row in rows]


def both(document: dict[str, Any], cluster: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Store]:
    """The stores of two runs of a spec that share nothing: here, and on the cluster."""
    stores = []
    for name, engine in (("local", Local()), ("ray", Ray(cluster.address))):
        monkeypatch.setenv("WEIGHIN_HOME", str(folder / f"home-{name}"))
        stores.append(carry_out(document, folder / f"{name}.duckdb", engine)[0])
    return stores


@needs_ray
@pytest.mark.slow
def test_both_engines_come_to_the_same_and_fail_alike(
    pico_dir: Path, cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A suite that takes its process down and a stage that raises fail alone, here as there."""
    document = {
        "base": str(pico_dir),
        "variants": {"half": "halve", "quarter": [{"from": "half"}, "halve"], "again": "halve", "bad": "explode"},
        "suites": {"count": None, "shy": None, "killed": None},
    }
    here, there = both(document, cluster, tmp_path, monkeypatch)
    assert numbers(here) == numbers(there)
    assert {row["status"] for row in numbers(there)} == {"ok", "abstained", "failed"}
    known = "select variant_key, parent_key, params from variants order by all"
    assert here.rows(known) == there.rows(known)
    assert len(there.rows(known)) == 3
    for store in (here, there):
        assert store.rows("select status from runs") == [{"status": "failed"}]
        assert store.rows("select count(*) as n from evaluations where status = 'ok'") == [{"n": 3}]


@needs_ray
@pytest.mark.slow
def test_the_reference_model_weighs_the_same_on_both_engines(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = {
        "base": "reference:base",
        "variants": {"rtn8": {"rtn": {"bits": 8}}, "thin": {"prune": {"method": "magnitude", "sparsity": 0.3}}},
        "suites": {
            "accuracy": {"tasks": ["world_facts"], "limit": 20},
            "fidelity": {"samples": 4, "limit": 10, "max_length": 64},
        },
    }
    here, there = both(document, cluster, tmp_path, monkeypatch)
    found = numbers(there)
    assert found == numbers(here)
    assert {row["status"] for row in found} == {"ok", "abstained"}  # a base has nothing to be faithful to
    assert sum(row["value"] is not None for row in found) > 100
    census = "select variant_key, form, disk_bytes, distance from identities order by all"
    assert here.rows(census) == there.rows(census)


@needs_ray
@pytest.mark.slow
def test_what_a_killed_node_had_is_done_elsewhere(pico_dir: Path, cluster: Any, tmp_path: Path) -> None:
    """A whole node is killed while it measures: nothing is lost, and nothing is kept twice."""
    trace, killed = tmp_path / "trace", list[int]()
    document = {
        "base": str(pico_dir),
        "variants": {f"v{n}": {"halve": {"factor": 0.5 + n / 10}} for n in range(3)},
        "suites": {"count": None, "slow": {"trace": str(trace)}},
    }

    def kill() -> None:
        while not trace.exists() or not trace.read_text().strip():
            time.sleep(0.02)
        killed.extend(node_of(int(trace.read_text().split()[0])))
        for process in killed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    store, _, ok = carry_out(document, tmp_path / "w.duckdb", Ray(cluster.address))
    killer.join()
    cluster.add_node(num_cpus=2, **NODE)
    assert ok and killed
    cells = store.rows("select label, suite, status, evaluation_id from cells")
    assert len(cells) == 8 and {cell["status"] for cell in cells} == {"ok"}
    assert len({cell["evaluation_id"] for cell in cells}) == 8
    held = store.rows("select count(*) as n, count(distinct evaluation_key) as k from evaluations")
    assert held == [{"n": 8, "k": 8}]
    assert store.rows("select count(*) as n from samples") == [{"n": 8}]
    assert len(trace.read_text().split()) >= 5, "the cell in flight was not tried again"


def node_of(process: int) -> list[int]:
    """All processes of the node that one of them belongs to, as when its machine loses power."""
    import psutil

    raylet = next(each for each in psutil.Process(process).parents() if each.name() == "raylet")
    return [raylet.pid, *(each.pid for each in raylet.children(recursive=True))]


@needs_ray
@pytest.mark.slow
def test_work_that_takes_every_worker_down_is_given_up_and_said(cluster: Any) -> None:
    engine, said = Ray(cluster.address), list[str]()

    def lost(work: Any, message: str) -> None:
        with pytest.raises(Lost, match=message):
            engine.do(work, Wants(), lambda *_: None)
        said.append("lost")

    def after() -> None:
        said.append(engine.do(sound, Wants(alone=True, memory=1 << 60, gpus=8.0), lambda *_: None))

    poisoned = Task("poisoned", partial(lost, poison, "3 workers were lost with it"))
    broken = Task("broken", partial(lost, trip, "KeyError: 'no such step'"))
    engine.each([poisoned, broken, Task("after", after, ("poisoned", "broken", "a task of another run"))])
    assert said == ["lost", "lost", "well"]


def poison(run: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def trip(run: Any) -> None:
    raise KeyError("no such step")


def sound(run: Any) -> str:
    return "well"


@needs_ray
@pytest.mark.slow
def test_times_have_a_node_for_themselves_and_work_goes_where_its_checkpoint_is(cluster: Any) -> None:
    """Two that want to be alone and two that do not, on nodes of two processors each: no interval overlaps theirs."""
    engine, seen = Ray(cluster.address), list[tuple[bool, str, float, float]]()

    def step(alone: bool, near: str) -> None:
        node, began, ended = engine.do(busy, Wants(alone=alone, near=(near,)), lambda *_: None)
        seen.append((alone, node, began, ended))
        read[near].add(node)

    read: dict[str, set[str]] = {"a": set(), "b": set()}
    first = [Task(near, partial(step, False, near)) for near in read]
    engine.each([*first, *(Task(f"t{n}", partial(step, n % 2 == 0, "ab"[n // 4]), ("a", "b")) for n in range(8))])
    assert len(seen) == 10
    for one in seen:
        if one[0]:
            others = [each for each in seen if each != one and each[1] == one[1]]
            assert all(each[3] <= one[2] or each[2] >= one[3] for each in others)
    assert all(len(nodes) == 1 for nodes in read.values()) and read["a"] != read["b"]


def busy(run: Any) -> tuple[str, float, float]:
    import ray

    began = time.monotonic()
    time.sleep(0.2)
    return ray.get_runtime_context().get_node_id(), began, time.monotonic()


@needs_ray
@pytest.mark.slow
def test_an_interrupted_run_waits_for_nobody(cluster: Any, tmp_path: Path) -> None:
    engine, began = Ray(cluster.address), tmp_path / "began"

    def stop() -> None:
        while not began.exists():
            time.sleep(0.02)
        raise KeyboardInterrupt

    def step() -> None:
        engine.do(partial(endless, str(began)), Wants(), lambda *_: None)

    def other() -> None:
        with engine._steps.away():  # as if it, too, had work elsewhere
            stop()

    with pytest.raises(KeyboardInterrupt):
        engine.each([Task("endless", step), Task("stop", other)])
    pid = int(began.read_text())
    while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]:
        time.sleep(0.05)


def endless(began: str, run: Any) -> None:
    draft = Path(began + ".draft")
    draft.write_text(str(os.getpid()))
    draft.rename(began)
    while True:
        time.sleep(0.1)


def test_the_engine_is_asked_for_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--address", "127.0.0.1:1"]) == 2
    assert "add --engine ray" in capsys.readouterr().err


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="ray is installed")
def test_without_ray_it_says_what_to_install(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--engine", "ray"]) == 2
    assert "pip install 'weighin[ray]'" in capsys.readouterr().err
