"""Cells a second on Ray workers of this machine: python benchmarks/ray_rate.py CELLS ROUNDS [WORKERS...].

A cell is a suite that does nothing, on the reference model: what is timed is a process of its own, the model reloaded
from disk, and the result kept. Workers 0 is the engine `local`. The first round of each starts its processes. What the
engine alone costs is told by 200 pieces of empty work.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

SUITE = '''"""{name}: does nothing."""
from weighin.harness import Metric, Sample, suite


@suite(Metric("value", unit="1"))
def {name}(model):
    """Yield a number."""
    yield Sample("a", 1.0)
'''


def plugins(folder: Path, count: int) -> list[str]:
    """So many suites that do nothing, installed in a folder; their names."""
    names = [f"nothing{n}" for n in range(count)]
    for name in names:
        (folder / f"bench_{name}.py").write_text(SUITE.format(name=name))
    info = folder / "weighin_bench_plugins-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: weighin-bench-plugins\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "\n".join(["[weighin.suites]", *(f"{name} = bench_{name}" for name in names)])
    )
    sys.path.insert(0, str(folder))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    return names


def once(suites: list[str], store: Path, workers: int) -> float:
    """Seconds of one run."""
    from rich.console import Console

    from weighin.harness.engine_local import Local
    from weighin.harness.engine_ray import Ray
    from weighin.harness.plan import job_names, make_plan
    from weighin.harness.progress import Display
    from weighin.harness.run import weigh
    from weighin.harness.spec import parse_spec
    from weighin.results.store import Store

    kept = Store(store)
    plan = make_plan(parse_spec({"base": "reference:base", "suites": dict.fromkeys(suites)}), kept)
    assert plan is not None
    began = time.monotonic()
    with open(os.devnull, "w") as null, Display(Console(file=null), job_names(plan), {}) as display:
        _, ok = weigh(plan, kept, display, engine=Ray() if workers else Local())
    assert ok and kept.rows("select count(*) as n from evaluations where status = 'ok'") == [{"n": len(suites)}]
    return time.monotonic() - began


def empty(run: object) -> None:
    """Work of no kind."""


def dispatch(pieces: int) -> float:
    """Seconds for so many pieces of empty work, each a task that asks for a processor."""
    from functools import partial

    from weighin.harness.engine import Task, Wants
    from weighin.harness.engine_ray import Ray

    engine = Ray()
    act = partial(engine.do, empty, Wants(), lambda *_: None)
    began = time.monotonic()
    engine.each([Task(str(number), act) for number in range(pieces)])
    return time.monotonic() - began


def main() -> None:
    cells, rounds, several = int(sys.argv[1]), int(sys.argv[2]), [int(each) for each in sys.argv[3:]]
    folder = Path(tempfile.mkdtemp(prefix="weighin-rate-"))
    os.environ.update(WEIGHIN_HOME=str(folder / "home"), RAY_USAGE_STATS_ENABLED="0")
    (folder / "site").mkdir()
    suites = plugins(folder / "site", cells)
    for workers in several or [0, 1, 2, 4, 8]:
        if workers:
            import ray

            from weighin.harness.engine_ray import LOOPBACK

            ray.init(num_cpus=workers, include_dashboard=False, _node_ip_address=LOOPBACK, log_to_driver=False)
        for number in range(rounds):
            seconds = once(suites, folder / f"{workers}-{number}.duckdb", workers)
            said = f"{workers or 'local'} workers, round {number}: {seconds:.1f} s, {cells / seconds:.2f} cells/s"
            print(said, flush=True)
        if workers:
            rates = ", ".join(f"{200 / dispatch(200):.0f}" for _ in range(3))
            print(f"{workers} workers, empty work: {rates} pieces/s", flush=True)
            ray.shutdown()


if __name__ == "__main__":
    main()
