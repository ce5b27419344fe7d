"""A job in its own process: whatever happens to it, its caller gets an outcome."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from weighin.harness import reference, worker
from weighin.harness.model import TransformersModel
from weighin.harness.plugin import Abstain, Checkpoint
from weighin.results.errors import WeighinError


def add(a: int, b: int) -> int:
    print("said on the way")
    return a + b


def whoami() -> tuple[int, bool]:
    return os.getpid(), "torch" in sys.modules


def modules_of_a_first_load() -> int:
    before = set(sys.modules)
    TransformersModel(Checkpoint(reference.reference_path("base"), "base"))
    return len(set(sys.modules) - before)


def fail() -> None:
    raise ValueError("first line\nsecond line")


def refuse() -> None:
    raise WeighinError("cannot, and why")


def abstain() -> None:
    raise Abstain("nothing to measure")


def exhaust() -> None:
    raise MemoryError


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave() -> None:
    os._exit(3)


def count() -> None:
    from tqdm import tqdm

    for _ in tqdm(range(5), desc="steps", mininterval=0):
        time.sleep(0.25)


def hold() -> int:
    block = bytearray(200 * 2**20)
    block[::4096] = b"x" * len(block[::4096])
    return len(block)


def test_a_value_comes_back_and_prints_go_to_the_log(tmp_path: Path) -> None:
    outcome = worker.run(worker.Job(add, {"a": 2, "b": 3}, tmp_path / "deep" / "job.log"))
    assert (outcome.status, outcome.value) == ("ok", 5)
    assert (tmp_path / "deep" / "job.log").read_text() == "said on the way\n"


def test_each_job_has_a_fresh_process_with_torch_loaded() -> None:
    first, second = (worker.run(worker.Job(whoami)).value for _ in range(2))
    assert first[0] != second[0] != os.getpid()
    assert first[1] and second[1]


def test_what_loading_a_model_imports_is_there_already() -> None:
    for _ in range(10):  # where the server has used torch's threads, one load in ten or so fails
        outcome = worker.run(worker.Job(modules_of_a_first_load))
        assert outcome.status == "ok", outcome.reason
        assert outcome.value < 30, "hundreds, and seconds, where the server has not loaded one"


def test_failures_are_outcomes(tmp_path: Path) -> None:
    log = tmp_path / "log"
    said = {f.__name__: worker.run(worker.Job(f, log=log)) for f in (fail, refuse, abstain, exhaust, die, leave)}
    assert said["fail"].reason == "ValueError: first line"
    assert "second line" in log.read_text(), "the whole trace is in the log"
    assert said["refuse"].reason == "cannot, and why"
    assert (said["abstain"].status, said["abstain"].reason) == ("abstained", "nothing to measure")
    assert said["exhaust"].reason == "out of memory"
    assert "killed by SIGKILL" in (said["die"].reason or "")
    assert "code 3" in (said["leave"].reason or "")
    assert {o.status for name, o in said.items() if name != "abstain"} == {"failed"}


def test_progress_bars_of_libraries_come_back() -> None:
    seen: list[tuple[str, int, int | None]] = []
    worker.run(worker.Job(count), lambda *state: seen.append(state))
    assert seen and {what for what, _, _ in seen} == {"steps"} and {total for _, _, total in seen} == {5}
    assert max(done for _, done, _ in seen) > min(done for _, done, _ in seen)


def test_peak_memory_is_the_jobs_own() -> None:
    small, large = worker.run(worker.Job(whoami)).peak_bytes, worker.run(worker.Job(hold)).peak_bytes
    assert small and large and 190 * 2**20 < large - small < 230 * 2**20


CALLER = """
import sys, time
from pathlib import Path
from weighin.harness import worker
sys.path.insert(0, {root!r})
from tests.test_worker import linger
if __name__ == "__main__":
    worker.run(worker.Job(linger, {{"trace": {trace!r}}}))
"""


def linger(trace: str) -> None:
    Path(trace).write_text(str(os.getpid()))
    time.sleep(600)


def test_a_job_dies_with_its_caller(tmp_path: Path) -> None:
    root, trace = str(Path(__file__).parent.parent), tmp_path / "pid"
    script = tmp_path / "caller.py"
    script.write_text(CALLER.format(root=root, trace=str(trace)))
    caller = subprocess.Popen([sys.executable, str(script)])
    while not (trace.is_file() and trace.read_text()):
        assert caller.poll() is None
        time.sleep(0.1)
    child = Path(f"/proc/{trace.read_text()}")
    assert child.exists()
    caller.kill()
    caller.wait()
    while child.exists() and "Z" not in (child / "stat").read_text().split()[2]:  # bounded by pytest's timeout
        time.sleep(0.1)
