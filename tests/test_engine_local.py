"""Work side by side on this machine: what shares it, what has it alone, and what an interruption leaves."""

import os
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weighin.harness import machine, rooms, worker
from weighin.harness.engine import Task, Wants
from weighin.harness.engine_local import Local, Room
from weighin.harness.plugin import Checkpoint
from weighin.harness.steps import Steps, Stopped
from weighin.results.errors import WeighinError


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes this a machine with other processors, accelerators, memory and orders."""

    def pretend(number: int, gpus: int = 0, gib: int = 64, threads: str | None = None) -> None:
        gpu = "\n".join(["a GPU, 1.0"] * gpus) or None
        facts = {**machine.facts(), "cores": number, "gpu": gpu, "threads": threads}
        monkeypatch.setattr(machine, "facts", lambda: facts)
        monkeypatch.setattr(machine, "ram_bytes", lambda: gib << 30)

    return pretend


def nothing(what: str, done: int, total: int | None) -> None:
    pass


def threads() -> tuple[int, int]:
    import torch

    return os.getpid(), torch.get_num_threads()


def hold(began: str) -> None:
    Path(began).write_text(str(os.getpid()))
    while True:
        time.sleep(0.05)


def meet(mine: str, other: str) -> bool:
    """True once another process is here at the same time."""
    Path(mine).touch()
    while not Path(other).exists():
        time.sleep(0.02)
    return True


def test_two_jobs_go_on_at_a_time(cores: Callable[..., None], tmp_path: Path) -> None:
    """Each waits for the other to be there; one after the other they would wait for ever."""
    cores(2)
    engine, said = Local(), list[Any]()
    names = [str(tmp_path / "a"), str(tmp_path / "b")]

    def step(mine: str, other: str) -> None:
        job = worker.Job(meet, {"mine": mine, "other": other})
        said.append(engine.do(lambda run: run(job), Wants(), nothing).value)

    engine.each([Task("a", partial(step, *names)), Task("b", partial(step, *reversed(names)))])
    assert said == [True, True]


def test_a_job_computes_with_its_share_and_alone_with_all(cores: Callable[..., None]) -> None:
    cores(2)
    engine = Local()
    shared = engine.do(lambda run: run(worker.Job(threads)), Wants(cpus=1), nothing).value[1]
    alone = engine.do(lambda run: run(worker.Job(threads)), Wants(cpus=1, alone=True), nothing).value[1]
    assert (shared, alone) == (1, worker.run(worker.Job(threads)).value[1])


def test_nothing_goes_on_beside_what_is_alone(cores: Callable[..., None]) -> None:
    """No work, and no step that keeps results either: its times would be theirs, too."""
    cores(4)
    engine, spans = Local(), list[tuple[bool, float, float]]()

    def step(alone: bool) -> None:
        def work(_: object) -> None:
            began = time.monotonic()
            time.sleep(0.03)
            spans.append((alone, began, time.monotonic()))

        engine.do(work, Wants(alone=alone), nothing)
        began = time.monotonic()
        time.sleep(0.01)  # results are kept
        spans.append((False, began, time.monotonic()))

    engine.each([Task(f"t{n}", partial(step, n % 3 == 0)) for n in range(9)])
    assert len(spans) == 18
    for mine in (each for each in spans if each[0]):
        assert all(ended <= mine[1] or began >= mine[2] for _, began, ended in spans if (began, ended) != mine[1:])


def test_steps_come_in_order_and_those_that_may_wait_behind_all_others() -> None:
    said = list[str]()
    tasks = [
        Task("time it", partial(said.append, "time it"), ("make",), last=True),
        Task("make", partial(said.append, "make"), ("a task of another run",)),
        Task("score", partial(said.append, "score"), ("make",)),
        Task("other", partial(said.append, "other")),
    ]
    Steps().each(tasks, 1, lambda: None)
    assert said == ["make", "score", "other", "time it"]


def test_only_one_step_acts_at_a_time() -> None:
    steps, inside, most = Steps(), list[int](), list[int]()

    def act() -> None:
        inside.append(1)
        time.sleep(0.005)
        most.append(len(inside))
        inside.pop()
        with steps.away():
            time.sleep(0.005)

    steps.each([Task(str(n), act) for n in range(12)], 4, lambda: None)
    assert most == [1] * 12


def test_steps_that_wait_for_each_other_are_a_fault_and_no_wait() -> None:
    tasks = [Task("a", lambda: None, ("b",)), Task("b", lambda: None, ("a",))]
    with pytest.raises(WeighinError, match="wait for each other: a, b"):
        Steps().each(tasks, 2, lambda: None)


def test_a_step_that_raises_ends_the_work_of_the_others(cores: Callable[..., None], tmp_path: Path) -> None:
    """Their processes are killed, and what they would have kept is not."""
    cores(3)
    engine, began, after = Local(), tmp_path / "began", list[str]()

    def endless() -> None:
        engine.do(lambda run: run(worker.Job(hold, {"began": str(began)})), Wants(), nothing)
        after.append("kept")

    def waits() -> None:
        engine.do(lambda run: run(worker.Job(threads)), Wants(alone=True), nothing)
        after.append("alone")

    def broken() -> None:
        with engine._steps.away():
            while not began.exists() or not began.read_text():
                time.sleep(0.02)
        raise KeyError("no such step")

    with pytest.raises(KeyError):
        engine.each([Task("endless", endless), Task("waits", waits), Task("broken", broken)])
    pid = began.read_text()
    while Path(f"/proc/{pid}").exists():  # its end takes the system a moment
        time.sleep(0.02)
    assert not after and engine._steps.stopped
    with pytest.raises(Stopped), engine._steps.turn():
        pass
    engine.each([Task("later", lambda: after.append("a run of its own"))])
    assert after == ["a run of its own"]


def test_a_process_killed_among_others_is_told_as_it_died(cores: Callable[..., None]) -> None:
    """Processes that start while others end do not take each other's exit codes."""
    cores(4)
    engine, reasons = Local(), list[str | None]()

    def step() -> None:
        reasons.append(engine.do(lambda run: run(worker.Job(os._exit, {"status": 3})), Wants(), nothing).reason)

    engine.each([Task(str(n), step) for n in range(12)])
    assert reasons == ["its process ended with code 3 and no answer"] * 12


sizes = st.builds(
    Wants, st.integers(1, 4), st.integers(0, 20).map(lambda n: n << 30), st.sampled_from([0.0, 1.0]), st.booleans()
)


@settings(max_examples=30, deadline=None)
@given(asked=st.lists(sizes, min_size=1, max_size=8), cpus=st.integers(1, 8), gib=st.integers(1, 40))
def test_no_more_is_taken_than_there_is(asked: list[Wants], cpus: int, gib: int) -> None:
    """Except by one that asks for more than there is at all: it has everything for itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "facts", lambda: {"cores": cpus, "gpu": None, "threads": None})
        patch.setattr(machine, "ram_bytes", lambda: gib << 30)
        room, inside, lock, seen = Room(), list[Wants](), threading.Lock(), list[list[Wants]]()

        def take(wants: Wants) -> None:
            with room.taken(wants):
                with lock:
                    inside.append(wants)
                    seen.append(list(inside))
                time.sleep(0.001)
                with lock:
                    inside.remove(wants)

        waiting = [threading.Thread(target=take, args=(wants,)) for wants in asked]
        for each in waiting:
            each.start()
        for each in waiting:
            each.join()
    assert len(seen) == len(asked)
    for together in (each for each in seen if len(each) > 1):
        assert not any(wants.alone or wants.gpus for wants in together)
        assert sum(wants.cpus for wants in together) <= cpus
        assert sum(wants.memory for wants in together) <= gib << 30


@pytest.mark.parametrize(
    ("machine_is", "needs", "width", "share"),
    [
        ({"number": 1}, 1, 1, 1),
        ({"number": 2}, 1, 2, 1),
        ({"number": 16}, 1, 4, 4),
        ({"number": 16, "threads": "2"}, 1, 4, 2),
        ({"number": 16, "gpus": 1}, 1, 1, 16),
        ({"number": 16, "gpus": 2}, 1, 2, 8),
        ({"number": 16, "gib": 24}, 9, 4, 8),  # room for two of that size
        ({"number": 2, "gib": 8}, 9, 2, 2),  # and for none
    ],
)
def test_a_share_is_a_matter_of_the_machine_and_the_size(
    cores: Callable[..., None], machine_is: dict[str, Any], needs: int, width: int, share: int
) -> None:
    cores(**machine_is)
    assert (rooms.width(), rooms.share(needs << 30)) == (width, share)


def test_what_a_server_answers_is_asked_for_alone(tmp_path: Path, pico_dir: Path) -> None:
    (tmp_path / "endpoint.json").write_text("{}")
    assert rooms.of_cell(Checkpoint(tmp_path, "served"), [], "accuracy").alone
    here = Checkpoint(pico_dir, "pico")
    assert not rooms.of_cell(here, [], "accuracy").alone and rooms.of_cell(here, [], "latency").alone
    twice = rooms.of_cell(here, [here, here], "accuracy").memory
    assert twice == rooms.of_cell(here, [], "accuracy").memory, "a relative that it is itself is not read again"
