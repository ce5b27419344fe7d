"""What this machine can measure, which extras are missing, and the command that brings them."""

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from weighin.harness import checkpoints, environments, machine, registry, report
from weighin.results.errors import WeighinError
from weighin.results.render import quantity
from weighin.results.store import Store

YES, NO = "[green]yes[/]", "[yellow]no[/]"
RAPL = Path("/sys/class/powercap")


def examine(console: Console, store: Store) -> None:
    """Print the machine, what can be measured, the extras, the plugins and the store."""
    facts = machine.facts()
    ram = quantity(float(machine.ram_bytes()), "B")
    console.print(
        f"[bold]machine[/]  {escape(facts['cpu'])}, {facts['cores']} cores, {ram}, {facts['gpu'] or 'no accelerator'}"
    )
    made = report.table("measures", "", "how")
    for what, able, how in _abilities(facts["gpu"] is not None):
        made.add_row(what, YES if able else NO, escape(how))
    console.print(made)
    console.print("\n[bold]extras[/]")
    extras = report.table("extra", "installed", "command")
    for name, packages in sorted(registry.extras().items()):
        absent = registry.missing(sorted(p for p in packages if not p.startswith("types") and p != "pandas_stubs"))
        extras.add_row(name, YES if not absent else NO, "" if not absent else escape(f"pip install 'weighin[{name}]'"))
    console.print(extras)
    _plugins(console)
    console.print(f"\nstore        {escape(str(store.path))}: {_store_state(store)}", highlight=False)
    console.print(f"checkpoints  {escape(str(checkpoints.home()))}", highlight=False)


def _abilities(gpu: bool) -> Iterator[tuple[str, bool, str]]:
    yield "accuracy", find_spec("lm_eval") is not None, "lm-eval"
    yield "latency", True, "wall clock; compare only on a quiet machine"
    peak = Path("/proc/self/status").is_file()
    yield "peak memory", peak, "/proc/self/status" if peak else "no /proc on this system"
    counters = sorted(RAPL.glob("intel-rapl:*/energy_uj")) if RAPL.is_dir() else []
    readable = [path for path in counters if os.access(path, os.R_OK)]
    if readable:
        yield "energy", True, f"counter: {readable[0]}"
    elif counters:
        yield (
            "energy",
            False,
            f"modelled only: {counters[0]} may not be read; allow it with: sudo chmod a+r {counters[0]}",
        )
    else:
        yield (
            "energy",
            gpu,
            "counter: the accelerator's" if gpu else "modelled only: this machine shows no energy counter",
        )


def _plugins(console: Console) -> None:
    for kind in registry.FOLDERS:
        for name in registry.entries(kind):
            absent = registry.absent(registry.load(kind, name))
            if absent:
                command = registry.install_command(absent)
                console.print(f"{kind} {name} needs {', '.join(absent)}: {escape(command)}", highlight=False)
    for environment in environments.all_of_them().values():
        if not environment.ready:
            stages = " and ".join(environment.stages)
            console.print(f"stage {stages}: {escape(environment.missing)}", highlight=False)


def _store_state(store: Store) -> str:
    if not store.exists():
        return "not there yet; `weighin run` makes it"
    try:
        rows = store.rows("select count(*) as runs from runs")
    except WeighinError as error:
        return str(error)
    return f"{rows[0]['runs']} runs"
