"""Jobs under another interpreter: that of a managed environment.

A host, one for each environment and as long-lived as its caller, is this module run by that interpreter. It takes
jobs over a socket and runs each as `worker` does here, in a fresh process from a fork server of its own; progress and
outcome come back the same way. A host whose caller is gone ends, and its job with it.

The source is ours, not a copy: a directory of links makes this package, and the packages that bring plugins, importable
there without what else is installed beside them.
"""

import atexit
import contextlib
import importlib.util
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from importlib import metadata
from multiprocessing.connection import Connection
from pathlib import Path
from uuid import uuid4

from weighin.harness import environments, registry, worker
from weighin.harness.checkpoints import home
from weighin.harness.environments import Environment
from weighin.harness.keys import digest

OURS = ("harness", "suites", "adapters", "results")


class _Host:
    """The caller's side of a host: its process and the socket."""

    def __init__(self, environment: Environment) -> None:
        ours, theirs = socket.socketpair()
        self.channel = Connection(ours.detach())
        variables = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP")}
        variables |= {"PYTHONPATH": str(source()), "PYTHONNOUSERSITE": "1", "WEIGHIN_ENVIRONMENT": environment.name}
        self.log = home() / "logs" / f"environment-{environment.name}.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.busy = threading.Lock()
        needs = {need for stage in environment.stages for need in registry.stage(stage).needs}
        command = [str(environment.python), "-m", "weighin.harness.hosted", str(theirs.fileno()), *sorted(needs)]
        with self.log.open("w") as said:
            self.process = subprocess.Popen(
                command, env=variables, pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                start_new_session=True,
            )  # fmt: skip
        theirs.close()

    def run(self, job: worker.Job, progress: worker.Progress | None) -> worker.Outcome:
        """Run a job and wait for it; a failure where the host dies."""
        try:
            with self.busy:
                self.channel.send(job)
                while not isinstance(message := self.channel.recv(), worker.Outcome):
                    if progress:
                        progress(*message)
        except (EOFError, OSError):
            self.end()
            return worker.Outcome("failed", reason=f"its environment's process ended with no answer (log: {self.log})")
        except BaseException:  # the caller was interrupted: the job is nobody's any more
            self.end()
            raise
        return message

    def end(self) -> None:
        """End the host and whatever it runs."""
        with contextlib.suppress(OSError):
            self.channel.close()
        self.process.kill()
        self.process.wait()


_hosts: dict[str, _Host] = {}
_table = threading.Lock()


def run(job: worker.Job, progress: worker.Progress | None = None) -> worker.Outcome:
    """Run a job in the environment it names and wait for it.

    Where that is not set up, the outcome is a failure with the command that makes it.
    """
    environment = environments.find(job.environment)
    if not environment.ready:
        return worker.Outcome("failed", reason=environment.missing)
    with _table:
        host = _hosts.get(environment.key)
        if host is None or host.process.poll() is not None:
            host = _hosts[environment.key] = _Host(environment)
    return host.run(job, progress)


@atexit.register
def end() -> None:
    """End all hosts of this process."""
    while _hosts:
        _hosts.popitem()[1].end()


def source() -> Path:
    """A directory of links under which this package and those of others' plugins can be imported, entry points too."""
    links = {f"weighin/{name}": str(Path(__file__).resolve().parent.parent / name) for name in OURS}
    points: dict[str, list[str]] = {}
    for kind in registry.FOLDERS.values():
        for point in metadata.entry_points(group=f"weighin.{kind}"):
            found = importlib.util.find_spec(point.module.partition(".")[0])
            if found is None or found.origin is None:
                continue
            where = Path(found.origin)
            target = where.parent if found.submodule_search_locations else where
            links[target.name] = str(target)
            points.setdefault(f"weighin.{kind}", []).append(f"{point.name} = {point.value}")
    text = "".join(f"[{group}]\n" + "".join(f"{line}\n" for line in lines) for group, lines in points.items())
    folder = environments.place() / f".source-{digest([links, text])[:16]}"
    if not folder.is_dir():
        _write(folder, links, text)
    return folder


def _write(folder: Path, links: dict[str, str], points: str) -> None:
    aside = folder.with_name(f"{folder.name}-{os.getpid()}-{uuid4().hex[:8]}")
    info = aside / "weighin_plugins-0.dist-info"
    info.mkdir(parents=True)
    (aside / "weighin").mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: weighin-plugins\nVersion: 0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(points, encoding="utf-8")
    for name, target in links.items():
        (aside / name).symlink_to(target)
    with contextlib.suppress(OSError):  # somebody else was quicker with the same links
        aside.rename(folder)


def serve(channel: Connection, preload: Sequence[str]) -> None:
    """The host's side: run what comes, one job after the other, until the caller is gone."""
    worker.warm_up(preload)
    jobs: list[worker.Job] = []
    news = threading.Condition()

    def read() -> None:
        """Reads all the time, so that the caller's end is noticed while a job runs."""
        with contextlib.suppress(EOFError, OSError):
            while True:
                job = channel.recv()
                with news:
                    jobs.append(job)
                    news.notify()
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    while True:
        with news:
            news.wait_for(lambda: bool(jobs))
            job = jobs.pop()
        channel.send(worker.run(replace(job, environment=""), lambda *said: channel.send(said)))


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])), sys.argv[2:])
