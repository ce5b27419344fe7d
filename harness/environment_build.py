"""Make a managed environment: installed aside, checked, renamed into place.

Whoever makes one holds its lock, so that two who want the same one do not meet; the lock goes with its process. What
is installed is noted package by package: a making that was killed goes on from there, and what it was at is installed
anew.
"""

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

from weighin.harness.checkpoints import MANIFEST, home
from weighin.harness.environments import Environment, Pin, place
from weighin.results.errors import WeighinError

AT_ONCE = 8
"""Packages that are installed by one call: a call costs a second, and what it was at is lost with a kill."""
LEDGER = "installed.txt"

Told = Callable[[int, int], None]
"""Called with how many packages are installed, and of how many."""


@dataclass(frozen=True)
class _Making:
    """An environment, the directory it grows in, and the descriptor of its lock."""

    environment: Environment
    aside: Path
    lock: int


def make(environment: Environment, told: Told, waiting: Callable[[], None] = lambda: None) -> Path:
    """Make an environment unless it is there, and return its directory.

    `waiting` is called where another process is at it. Raises WeighinError with the end of pip's words where a package
    cannot be installed; what was installed until then is kept for the next call.
    """
    place().mkdir(parents=True, exist_ok=True)
    with _locked(place() / f".{environment.folder.name}.lock", waiting) as lock:
        if environment.ready:
            return environment.folder
        aside = _aside(environment)
        _install(_Making(environment, aside, lock), told)
        _check(environment, aside)
        found = {
            "name": environment.name, "key": environment.key, "packages": environment.packages,
            "made_at": datetime.now(UTC).isoformat(), "bytes": size(aside),
        }  # fmt: skip
        (aside / MANIFEST).write_text(json.dumps(found, indent=1, sort_keys=True), encoding="utf-8")
        aside.rename(environment.folder)
    return environment.folder


def size(folder: Path) -> int:
    """Bytes on disk of all that lies in a directory; links count nothing."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def half_made(environment: Environment) -> tuple[int, int] | None:
    """Packages that a making which was interrupted has installed, and of how many; None where there is none."""
    ledger = _aside(environment) / LEDGER
    return (len(_noted(ledger)), len(environment.pins)) if ledger.is_file() else None


def grown(environment: Environment) -> int:
    """Bytes on disk of one that is being made, or was."""
    folder = _aside(environment)
    return size(folder) if folder.is_dir() else 0


def log_of(environment: Environment) -> Path:
    """Where pip's words go."""
    return home() / "logs" / f"setup-{environment.name}.log"


def _aside(environment: Environment) -> Path:
    return place() / f".making-{environment.folder.name}"


def _install(making: _Making, told: Told) -> None:
    environment, aside = making.environment, making.aside
    ledger = aside / LEDGER
    if not ledger.is_file():
        # Its scripts name the directory it was made in and break with its name; only its interpreter is ever called.
        ours = ["--without-pip"] if find_spec("pip") else []
        _call(making, [sys.executable, "-m", "venv", "--clear", *ours, str(aside)])
        ledger.touch()
    constraints = aside / "constraints.txt"
    constraints.write_text("".join(f"{pin}\n" for pin in environment.pins), encoding="utf-8")
    noted = _noted(ledger)
    told(len(noted), len(environment.pins))
    for some in _groups([pin for pin in environment.pins if str(pin) not in noted]):
        how = ["--constraint", str(constraints)] if some[0].dependencies else ["--no-deps"]
        _call(making, [*_pip(aside / "bin" / "python"), "--ignore-installed", *how, *map(str, some)])
        noted |= set(map(str, some))
        _note(ledger, some)
        told(len(noted), len(environment.pins))


def _pip(python: Path) -> list[str]:
    """The command that installs for an interpreter: by our own pip where there is one, else by its own."""
    pip = [sys.executable, "-m", "pip", "--python", str(python)] if find_spec("pip") else [str(python), "-m", "pip"]
    return [*pip, "install", "--no-input"]


def _groups(pins: Sequence[Pin]) -> Iterator[list[Pin]]:
    """What is installed by one call: a few at once, and alone what brings its dependencies, after all others."""
    plain = [pin for pin in pins if not pin.dependencies]
    for start in range(0, len(plain), AT_ONCE):
        yield plain[start : start + AT_ONCE]
    for pin in pins:
        if pin.dependencies:
            yield [pin]


def _check(environment: Environment, aside: Path) -> None:
    """That what is installed is what is listed. Raises WeighinError."""
    code = (
        "import json, sys\nfrom importlib import metadata\n"
        "def version(name):\n"
        "    try: return metadata.version(name)\n"
        "    except metadata.PackageNotFoundError: return None\n"
        "print(json.dumps({name: version(name) for name in json.load(sys.stdin)}))"
    )
    asked = json.dumps([pin.name for pin in environment.pins])
    answer = subprocess.run(
        [str(aside / "bin" / "python"), "-I", "-c", code], input=asked, capture_output=True, text=True, check=True
    )
    found = json.loads(answer.stdout)
    # A local version (`+cpu`) is a build of the listed release.
    wrong = [
        pin for pin in environment.pins if pin.version not in (found[pin.name], str(found[pin.name]).split("+")[0])
    ]
    if wrong:
        told = ", ".join(f"{pin} (installed: {found[pin.name] or 'not at all'})" for pin in wrong)
        (aside / LEDGER).unlink()
        raise WeighinError(f"environment {environment.name}: what is installed is not what is listed: {told}")


def _call(making: _Making, command: list[str]) -> None:
    """Run a command, its words into the log. Raises WeighinError with the last of them.

    It holds the lock, too: should this process be killed, nobody begins before the command has ended.
    """
    environment, log = making.environment, log_of(making.environment)
    log.parent.mkdir(parents=True, exist_ok=True)
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    with log.open("a", encoding="utf-8") as file:
        start = file.tell()
        done = subprocess.run(
            command, stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=clean, pass_fds=(making.lock,)
        )
    if done.returncode:
        said = log.read_bytes()[start:].decode(errors="replace")
        lines = [line for line in said.splitlines() if "ERROR" in line]
        why = "; ".join(line.removeprefix("ERROR: ") for line in lines[-2:]) or f"exit code {done.returncode}"
        raise WeighinError(
            f"environment {environment.name}: {why} (log: {log}). What is installed so far is kept; "
            f"`{environment.command}` goes on from there"
        )


def _noted(ledger: Path) -> set[str]:
    return set(ledger.read_text(encoding="utf-8").split()) if ledger.is_file() else set()


def _note(ledger: Path, pins: Sequence[Pin]) -> None:
    with ledger.open("a", encoding="utf-8") as file:
        file.write("".join(f"{pin}\n" for pin in pins))
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _locked(path: Path, waiting: Callable[[], None]) -> Iterator[int]:
    """Hold a lock that ends with this process and those it starts, however they end; its descriptor."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)
