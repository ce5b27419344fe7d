"""One job in a fresh process: no allocator, cache or monkey patch leaks from one to the next.

Processes come from a fork server that has the heavy libraries loaded already. What libraries print goes to the job's
log; their progress bars (all of them are tqdm's) come back as progress. A job that raises, is killed or runs out of
memory ends as an `Outcome` with a reason; the caller goes on. A job whose caller dies ends itself.
"""

import contextlib
import gc
import multiprocessing
import multiprocessing.connection
import os
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from weighin.harness.plugin import Abstain
from weighin.results.errors import WeighinError
from weighin.results.records import Status

PRELOAD = [
    "torch", "transformers", "lm_eval.evaluator", "lm_eval.models.huggingface", "weighin.harness.jobs",
    "weighin.harness.preload",
]  # fmt: skip
ENVIRONMENT = {
    # Threads that wait must not spin for long: on a machine that is busy otherwise, that costs a small model a factor
    # of 40. If they slept at once, waking them would cost it a factor of 2 on one that is idle.
    "OMP_WAIT_POLICY": "PASSIVE",
    "GOMP_SPINCOUNT": "10000",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "RAGAS_DO_NOT_TRACK": "true",
    "PYTHONWARNINGS": "ignore",
    "KINETO_LOG_LEVEL": "5",
    # Asking whether there is a GPU must not start CUDA in the fork server: no child of it could use one then.
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
}

_table = threading.Lock()
"""Held by whoever starts or ends a process: multiprocessing's list of its children is made for one thread."""
_running: set[Any] = set()
_served = threading.Event()

Progress = Callable[[str, int, int | None], None]
"""Called with what is going on, how many are done, and of how many (None: unknown)."""


@dataclass(frozen=True)
class Job:
    """A function of this package by name, its arguments, and the file its libraries may write to; `environment` names
    the managed environment it runs in, empty: ours; `threads` how many torch and what follows it compute with."""

    work: Callable[..., Any]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    log: Path = Path(os.devnull)
    environment: str = ""
    threads: int | None = None


@dataclass(frozen=True)
class Outcome:
    """How a job ended: its value when `ok`, the reason when not; wall seconds; peak resident bytes of its process."""

    status: Status
    value: Any = None
    reason: str | None = None
    seconds: float = 0.0
    peak_bytes: int | None = None


def warm_up(packages: Iterable[str] = ()) -> None:
    """Start the fork server, so that it loads its libraries, `packages` among them, while the caller still plans.

    A server that runs already stays as it is: the first call decides.
    """
    os.environ.update({name: value for name, value in ENVIRONMENT.items() if name not in os.environ})
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*PRELOAD, *sorted(packages)])
    with _silenced():
        forkserver.ensure_running()
    _served.set()


def run(job: Job, progress: Progress | None = None) -> Outcome:
    """Run a job in a process of its own, by the interpreter of its environment, and wait for it."""
    if job.environment:
        from weighin.harness.hosted import run as run_there

        # this module is known by two names while it imports one that imports it
        return run_there(job, progress)  # pyright: ignore[reportArgumentType, reportReturnType]
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(job, theirs), daemon=True)
    began = time.monotonic()
    with _table:
        if not _served.is_set():  # only once: whoever prints meanwhile is silenced, too
            warm_up()
        process.start()
        _running.add(process)
    theirs.close()
    answer: Outcome | None = None
    try:
        answer = _answer(ours, process.sentinel, progress)
    finally:
        if answer is None:
            process.kill()
        with _table:
            process.join()
            _running.remove(process)
        ours.close()
    seconds = time.monotonic() - began
    if answer is None:
        return Outcome("failed", reason=_death(process.exitcode), seconds=seconds)
    return Outcome(answer.status, answer.value, answer.reason, seconds, answer.peak_bytes)


def stop() -> None:
    """Kill the jobs that other threads wait for; they get their outcomes."""
    with _table:
        for process in _running:
            process.kill()
    if hosted := sys.modules.get("weighin.harness.hosted"):
        hosted.end()


def _answer(channel: Connection, sentinel: int, progress: Progress | None) -> Outcome | None:
    """The job's answer; None when its process ended without one. What it reports on the way goes to `progress`."""
    while True:
        ready = multiprocessing.connection.wait([channel, sentinel])
        if channel not in ready:
            return None
        try:
            message = channel.recv()
        except EOFError:
            return None
        if isinstance(message, Outcome):
            return message
        if progress:
            progress(*message)


def _death(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        guess = " (most likely the system ran out of memory)" if -code == signal.SIGKILL else ""
        return f"its process was killed by {name}{guess}"
    return f"its process ended with code {code} and no answer"


def _child(job: Job, channel: Connection) -> None:
    gc.freeze()  # what the server has loaded stays: a collection that looked through it would copy all its pages
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the caller decides what a Ctrl-C ends
    _die_with_caller()
    if job.threads:
        with contextlib.suppress(ImportError):  # a managed environment may do without
            import torch

            torch.set_num_threads(job.threads)
    _log_to(job.log)
    _bars_to(channel)
    try:
        outcome = Outcome("ok", job.work(**job.arguments))
    except Abstain as error:
        outcome = Outcome("abstained", reason=str(error))
    except WeighinError as error:
        outcome = Outcome("failed", reason=str(error))
    except MemoryError:
        outcome = Outcome("failed", reason="out of memory")
    except BaseException as error:
        traceback.print_exc()
        first = next(iter(str(error).strip().splitlines()), "")
        outcome = Outcome("failed", reason=f"{type(error).__name__}: {first}".rstrip(": "))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    with contextlib.suppress(BrokenPipeError):
        channel.send(Outcome(outcome.status, outcome.value, outcome.reason, peak_bytes=peak))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # libraries' exit handlers have nothing left to do, and some hang


def _die_with_caller() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        sentinel = parent.sentinel

        def watch() -> None:
            multiprocessing.connection.wait([sentinel])
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()


def _log_to(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115


def _bars_to(channel: Connection) -> None:
    """Send every tqdm bar's state to the caller, a few times a second: libraries need not know about us."""
    try:
        from tqdm.std import tqdm
    except ImportError:
        return
    last = 0.0

    def display(bar: Any, *_: Any, **__: Any) -> bool:
        nonlocal last
        now = time.monotonic()
        if now - last > 0.2:
            last = now
            with contextlib.suppress(OSError, ValueError):
                channel.send((str(bar.desc or "").rstrip(": "), int(bar.n), int(bar.total) if bar.total else None))
        return True

    tqdm.display = display  # pyright: ignore[reportAttributeAccessIssue]


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Whoever is started meanwhile inherits a closed mouth: imports print warnings that are nobody's business."""
    null = os.open(os.devnull, os.O_RDWR)
    kept = os.dup(1), os.dup(2)
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.dup2(null, 1)
        os.dup2(null, 2)
        yield
    finally:
        for target, original in zip((1, 2), kept, strict=True):
            os.dup2(original, target)
            os.close(original)
        os.close(null)
