"""Managed environments: made whole or not at all, resumed after a kill, named by their list; jobs run in them."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.environment_plugins import write_list, write_ours_wheel, write_plugins, write_wheel
from weighin.harness import environment_build, environments, hosted, worker
from weighin.harness.cli import main
from weighin.harness.plan import Plan, job_names, make_plan
from weighin.harness.progress import Display
from weighin.harness.run import weigh
from weighin.harness.spec import parse_spec
from weighin.results.compare import compare
from weighin.results.errors import WeighinError
from weighin.results.store import Store

Ready = Callable[[], environments.Environment]
PINS = [f"tiny_{name}==1.0" for name in ("one", "two", "three", "four")]


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Ready:
    """Copy an environment that was made once into this test's place, where the test is not about the making."""
    kept: dict[Path, Path] = {}

    def copy() -> environments.Environment:
        environment = environments.find("tiny")
        name = Path(environment.folder.name)
        if name not in kept:
            environment_build.make(environment, lambda done, total: None)
            kept[name] = tmp_path_factory.mktemp("kept") / name
            shutil.copytree(environment.folder, kept[name], symlinks=True)
        elif not environment.ready:
            shutil.copytree(kept[name], environment.folder, symlinks=True)
        return environment

    return copy


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The plugin package on the path, and its wheels where pip looks, which looks nowhere else."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for pin in PINS:
        write_wheel(wheels, pin.split("==")[0])
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    folder = write_plugins(tmp_path / "site", PINS)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]))
    yield folder
    hosted.end()
    for name in [name for name in sys.modules if name.startswith("tp_abroad")]:
        del sys.modules[name]


def made(told: Callable[[int, int], None] = lambda done, total: None) -> environments.Environment:
    environment = environments.find("tiny")
    environment_build.make(environment, told)
    return environment


def installs(environment: environments.Environment) -> list[str]:
    """What pip says it installed, call by call."""
    log = environment_build.log_of(environment).read_text()
    return [name for line in log.splitlines() if line.startswith("Successfully") for name in line.split()[2:]]


def test_one_is_made_and_listed(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["setup", "--list"]) == 0
    assert "not set up" in capsys.readouterr().out
    assert main(["setup", "tiny"]) == 0
    said = capsys.readouterr().out
    assert "0 of 4 packages" in said and "4 of 4 packages" in said and "tiny is set up" in said
    environment = environments.find("tiny")
    assert environment.made()["packages"] == {
        "tiny-one": "1.0",
        "tiny-two": "1.0",
        "tiny-three": "1.0",
        "tiny-four": "1.0",
    }
    answer = subprocess.run(
        [str(environment.python), "-c", "import tiny_four; print(tiny_four.ONE)"], capture_output=True
    )
    assert answer.stdout == b"1.0\n"
    assert main(["setup", "tiny"]) == 0 and len(installs(environment)) == 4, "the second time there is nothing to do"
    capsys.readouterr()
    assert main(["setup", "--list"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("tiny")]
    assert "ready" in line and "iB" in line and "weighin setup" not in line


def test_a_changed_list_is_another_environment(site: Path, ready: Ready, capsys: pytest.CaptureFixture[str]) -> None:
    before = ready()
    write_list(site, PINS[:2])
    after = environments.find("tiny")
    assert after.folder != before.folder and not after.ready
    main(["setup", "--list"])
    assert f"{before.folder.name}: no list names it any more" in capsys.readouterr().out
    write_list(site, PINS, "the same, said otherwise")
    assert environments.find("tiny").folder == before.folder


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        (["tiny_one>=1.0"], "tiny.txt:2: 'tiny_one>=1.0' is no pin"),
        (["tiny_one==1.0", "tiny-One==1.1"], "tiny.txt:3: tiny-one is listed twice"),
        (["--index-url http://x"], "no pin"),
        ([], "lists nothing"),
    ],
)
def test_a_list_that_pins_nothing_is_refused(site: Path, lines: list[str], fault: str) -> None:
    write_list(site, lines)
    with pytest.raises(WeighinError, match=fault.replace(".", r"\.")):
        environments.find("tiny")


def test_an_unknown_name_is_offered_the_nearest(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["setup", "tinny"]) == 2
    assert "Did you mean 'tiny'?" in capsys.readouterr().err


def test_what_cannot_be_installed_says_why_and_keeps_the_rest(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment_build, "AT_ONCE", 1)
    write_list(site, [*PINS, "tiny_five==1.0"])
    with pytest.raises(WeighinError, match=r"No matching distribution found for tiny-five==1\.0.*`weighin setup tiny`"):
        made()
    environment = environments.find("tiny")
    assert not environment.ready and environment_build.half_made(environment) == (4, 5)
    write_wheel(tmp_path / "wheels", "tiny_five")
    seen: list[int] = []
    assert made(lambda done, total: seen.append(done)).ready
    assert seen == [4, 5] and sorted(installs(environment)) == sorted({*installs(environment)})


CHILD = """
import sys
from weighin.harness import environment_build
from weighin.harness.cli import main
environment_build.AT_ONCE = 1
sys.exit(main(["setup", "tiny"]))
"""


def child() -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", CHILD],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_a_kill_half_way_loses_only_what_it_was_at(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    environment = environments.find("tiny")
    process = child()
    while not (done := environment_build.half_made(environment)) or not done[0]:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not environment.ready and not environment.folder.exists()
    main(["setup", "--list"])
    assert "interrupted at" in capsys.readouterr().out
    ledger = environments.place() / f".making-{environment.folder.name}" / environment_build.LEDGER
    kept = ledger.read_text().split()
    assert 0 < len(kept) < 4
    assert made().ready
    assert all(installs(environment).count(pin.replace("==", "-")) == 1 for pin in kept), "these were not done again"


def test_what_is_noted_but_not_there_is_not_published(site: Path, ready: Ready) -> None:
    environment = environments.find("tiny")
    ready()
    environment.folder.rename(environments.place() / f".making-{environment.folder.name}")
    aside = environments.place() / f".making-{environment.folder.name}"
    (aside / "weighin.json").unlink()
    next(aside.rglob("tiny_two-1.0.dist-info/METADATA")).unlink()
    with pytest.raises(WeighinError, match=r"not what is listed: tiny-two==1\.0"):
        made()
    assert not environment.ready
    assert made().ready, "and the next call begins anew"


def test_two_at_once_make_one(site: Path) -> None:
    both = [child(), child()]
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sum("another process is making it" in text for text in said) <= 1
    assert len(installs(environments.find("tiny"))) == 4, "each package was installed once"


def job(name: str, **arguments: Any) -> worker.Job:
    return worker.Job(getattr(import_module("tp_abroad"), name), arguments, environment="tiny")


def test_a_job_runs_there_with_our_source_and_nothing_else_of_ours(site: Path, ready: Ready) -> None:
    environment = ready()
    first, second = (worker.run(job("where")) for _ in range(2))
    assert first.status == "ok", first.reason
    assert first.value["prefix"] == str(environment.folder) and first.value["one"] == 1.0
    assert not first.value["pydantic"], "what is installed here is not seen there"
    assert Path(first.value["weighin"]).resolve() == Path(hosted.__file__).resolve().with_name("__init__.py")
    assert first.value["pid"] != second.value["pid"], "each job has a process of its own"
    killed = worker.run(job("vanish"))
    assert killed.status == "failed" and "SIGKILL" in (killed.reason or "")
    assert worker.run(job("where")).status == "ok"


def test_a_host_that_dies_fails_its_job_alone(site: Path, ready: Ready) -> None:
    import threading

    ready()
    assert worker.run(job("where")).status == "ok"
    (host,) = hosted._hosts.values()
    threading.Timer(0.5, host.process.kill).start()
    lost = worker.run(job("linger"))
    assert lost.status == "failed" and "environment" in (lost.reason or "")
    assert worker.run(job("where")).status == "ok"


def test_what_others_wait_for_can_be_stopped(site: Path, ready: Ready) -> None:
    """Two threads wait for jobs, one of them for its turn at the host: both have an answer."""
    import threading

    ready()
    assert worker.run(job("where")).status == "ok"
    answers = list[worker.Outcome]()
    waiting = [threading.Thread(target=lambda: answers.append(worker.run(job("linger")))) for _ in range(2)]
    for each in waiting:
        each.start()
    while any(each.is_alive() for each in waiting):  # a job that is not there yet is stopped by the next call
        worker.stop()
        waiting[0].join(0.2)
    assert [answer.status for answer in answers] == ["failed", "failed"]


def test_nothing_outlives_its_caller(site: Path, ready: Ready, tmp_path: Path) -> None:
    ready()
    code = (
        "import tp_abroad\nfrom weighin.harness import worker\n"
        "print(worker.run(worker.Job(tp_abroad.where, environment='tiny')).value['pid'], flush=True)\n"
        "from weighin.harness import hosted\n"
        "print(*[h.process.pid for h in hosted._hosts.values()], flush=True)\n"
        "worker.run(worker.Job(tp_abroad.linger, environment='tiny'))"
    )
    caller = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert caller.stdout is not None
    caller.stdout.readline()
    host = int(caller.stdout.readline())
    caller.kill()
    caller.wait()
    for _ in range(600):
        if not Path(f"/proc/{host}").exists():
            break
        time.sleep(0.05)
    assert not Path(f"/proc/{host}").exists()


SUITES = {"memory": {"new_tokens": 2}, "fidelity": {"samples": 4, "limit": 4, "max_length": 64}}


def planned(base: Path, store: Store, **more: Any) -> Plan:
    document = {"base": str(base), "variants": {"far": "abroad", **more}, "suites": SUITES}
    found = make_plan(parse_spec(document), store)
    assert found is not None
    return found


def test_the_key_holds_the_list(site: Path, pico_dir: Path, tmp_path: Path) -> None:
    def keys() -> tuple[str, str, dict[str, Any]]:
        plan = planned(pico_dir, Store(tmp_path / "weighin.duckdb"), near={"decode": {"beams": 2}})
        cell = next(c for c in plan.cells if (c.label, c.suite) == ("far", "memory"))
        return plan.variant("far"), plan.variant("near"), dict(cell.protocol)

    first = keys()
    assert first[2]["environment"]["name"] == "tiny" and first[2]["packages"]["torch"] == "absent"
    write_list(site, PINS, "another comment")
    assert keys() == first
    write_list(site, [*PINS[:3], "tiny_four==1.1"])
    second = keys()
    assert second[0] != first[0] and second[1] == first[1] and second[2]["environment"] != first[2]["environment"]


def test_plan_and_run_say_how_to_make_what_is_missing(
    site: Path, pico_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "the environment tiny is not set up on this machine: weighin setup tiny"
    spec = tmp_path / "spec.yaml"
    spec.write_text(f"base: {pico_dir}\nvariants: {{far: abroad}}\nsuites: {{memory: {{new_tokens: 2}}}}\n")
    assert main(["plan", str(spec)]) == 0
    assert words in " ".join(capsys.readouterr().out.split())
    assert main(["run", str(spec)]) == 4
    rows = Store(os.environ["WEIGHIN_STORE"]).rows("select label, status, reason from cells order by label")
    assert [(row["label"], row["status"]) for row in rows] == [("base", "ok"), ("far", "failed")]
    assert words in rows[1]["reason"]


def test_a_variant_of_it_is_made_and_weighed_there(site: Path, pico_dir: Path, tmp_path: Path) -> None:
    """From the spec to what `compare` says; the environment borrows our torch through a wheel."""
    write_ours_wheel(tmp_path / "wheels")
    write_list(site, [*PINS, "ours==1.0"])
    made()
    store = Store(tmp_path / "weighin.duckdb")
    plan = planned(pico_dir, store)
    with Display(Console(file=open(os.devnull, "w")), job_names(plan), {}) as display:
        run, ok = weigh(plan, store, display)
    cells = store.rows("select label, suite, status, reason from cells where run_id = ?", [run])
    assert ok, cells
    (card,) = store.rows("select * from variant_cards where run_id = ? and variant = 'far'", [run])
    assert card["kernel"] == "abacus (abroad)" and card["loader"] == "abroad" and card["form"] == "dense"
    assert card["distance"] == pytest.approx(0.5, abs=1e-6), "half of every matrix is gone"
    scores = {
        row["metric"]: row for row in store.rows("select * from scores where run_id = ? and variant = 'far'", [run])
    }
    assert scores["kl_root"]["value"] > 0
    assert "out of sight" in scores["activations"]["reason"] and "does not tell" in scores["kv_per_token"]["reason"]
    beside = compare(store, "base", "far", run=run)
    assert {c.metric for c in beside.comparisons} >= {"disk", "weights"}, "its packages are part of it, not of how"
    assert any("environment tiny" in note for note in beside.notes)
