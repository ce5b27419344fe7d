"""The verb `setup`: make managed environments, or tell which there are."""

import argparse
import shutil
from collections.abc import Iterator

from rich.console import Console
from rich.markup import escape

from weighin.harness import environment_build, environments, report
from weighin.harness.environments import Environment
from weighin.results.errors import WeighinError
from weighin.results.render import MISSING, quantity

Args = argparse.Namespace
ROOM = 4 << 30
"""Bytes that should be free before one is made: torch and a runtime take two to three GiB, and as much to unpack."""


def setup(args: Args) -> int:
    """Make the environments that are named, each unless it is there; or list them all."""
    console = Console()
    if args.list or not args.names:
        _list(console)
        return 0 if args.list else 2
    for environment in [environments.find(name) for name in args.names]:
        _make(console, environment)
    return 0


def _make(console: Console, environment: Environment) -> None:
    if environment.ready:
        console.print(f"{environment.name} is set up: {_size(environment)}", highlight=False)
        return
    environments.place().mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(environments.place()).free
    if free < ROOM:
        raise WeighinError(
            f"{environments.place()}: {quantity(float(free), 'B')} are free, and an environment may take "
            f"{quantity(float(ROOM), 'B')} while it is made. WEIGHIN_HOME chooses another place"
        )
    log = environment_build.log_of(environment)
    console.print(f"{environment.name}: {len(environment.pins)} packages (log: {escape(str(log))})", highlight=False)
    with console.status("") as status:

        def told(done: int, total: int) -> None:
            size = quantity(float(environment_build.grown(environment)), "B")
            line = f"{environment.name}: {done} of {total} packages, {size}"
            status.update(line)
            if not console.is_terminal:
                console.print(line, highlight=False)

        def waiting() -> None:
            console.print(f"{environment.name}: another process is making it; waiting", highlight=False)

        environment_build.make(environment, told, waiting)
    console.print(f"{environment.name} is set up: {_size(environment)}", highlight=False)


def _list(console: Console) -> None:
    found = environments.all_of_them()
    made = report.table("environment", "state", "size", "packages", "stages", "command")
    for environment in found.values():
        done = environment_build.half_made(environment)
        state = "ready" if environment.ready else "not set up"
        if done and not environment.ready:
            state = f"interrupted at {done[0]} of {done[1]}"
        stages, count = ", ".join(environment.stages), str(len(environment.pins))
        command = "" if environment.ready else environment.command
        made.add_row(environment.name, state, _size(environment), count, stages, command)
    console.print(made)
    for name, size in _left_over({each.folder.name for each in found.values()}):
        console.print(f"{name}: no list names it any more, delete it ({size})", highlight=False, soft_wrap=True)
    console.print(f"[dim]in {escape(str(environments.place()))}[/]", highlight=False)


def _size(environment: Environment) -> str:
    size = environment.made().get("bytes") if environment.ready else environment_build.grown(environment)
    return quantity(float(size), "B") if size else MISSING


def _left_over(known: set[str]) -> Iterator[tuple[str, str]]:
    """Environments of lists that have changed since, with their sizes."""
    place = environments.place()
    for folder in sorted(place.iterdir()) if place.is_dir() else []:
        name = folder.name.removeprefix(".making-")
        if folder.is_dir() and not name.startswith(".source-") and name not in known:
            yield folder.name, quantity(float(environment_build.size(folder)), "B")
