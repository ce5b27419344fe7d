"""The verbs of the command line: each takes the parsed arguments and returns an exit code."""

import argparse
import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from weighin.harness import environments, lineage, registry, report
from weighin.harness.catalogue import allowed
from weighin.harness.spec import packaged, read_spec
from weighin.results.errors import WeighinError
from weighin.results.store import Store

Args = argparse.Namespace


def listing(args: Args) -> int:
    """Names, one a line with its first sentence; nothing heavy is imported."""
    console = Console()
    for kind in registry.FOLDERS:
        if args.what in (None, f"{kind}s"):
            _list_plugins(console, kind)
    if args.what in (None, "specs"):
        _listed(console, "specs", [(name, _comment(path)) for name, path in packaged().items()])
    store = Store(args.store)
    if args.what in ("variants", "runs") or (args.what is None and store.exists()):
        run = store.latest_run()
        if args.what != "runs" and run:
            console.print("\n[bold]variants[/] of the latest run")
            lineage.run_tree(console, store, run)
        if args.what != "variants":
            _list_runs(console, store)
    return 0


def _list_plugins(console: Console, kind: registry.Kind) -> None:
    rows = [(name, entry.doc().split("\n\n")[0].replace("\n", " ")) for name, entry in registry.entries(kind).items()]
    _listed(console, f"{kind}s", rows)


def _listed(console: Console, title: str, rows: list[tuple[str, str]]) -> None:
    console.print(f"\n[bold]{title}[/]")
    made = report.table("name", "what")
    made.show_header = False
    for name, text in rows:
        made.add_row(escape(name), escape(text))
    console.print(made)


def _comment(path: Path) -> str:
    """The comment at the head of a packaged spec."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return lines[0].lstrip("# ") if lines and lines[0].startswith("#") else ""


def _list_runs(console: Console, store: Store) -> None:
    rows = store.rows(
        "select run_id, spec_name, status, started_at from runs order by started_at desc, run_id desc limit 50"
    )
    said = [(r["run_id"], f"{r['spec_name']}  {r['status']}  {r['started_at']:%Y-%m-%d %H:%M} UTC") for r in rows]
    _listed(console, "runs", said)


def show(args: Args) -> int:
    """A plugin's documentation and parameters; else a run's scores; else a variant's lineage and scores."""
    console = Console()
    for kind in registry.FOLDERS:
        if args.name in registry.entries(kind):
            _show_plugin(console, kind, args.name)
            return 0
    store = Store(args.store)
    if store.exists():
        known = {row["run_id"] for row in store.rows("select run_id from runs")}
        if args.name in known:
            report.origin(console, store, args.name)
            lineage.run_tree(console, store, args.name)
            report.scores(console, store, args.name)
            return 0
    lineage.variant_tree(console, store, args.name)
    return 0


def _show_plugin(console: Console, kind: registry.Kind, name: str) -> None:
    plugin = registry.load(kind, name)
    console.print(f"[bold]{kind} {name}[/]\n")
    console.print(escape(registry.entry(kind, name).doc()), highlight=False)
    made = report.table("parameter", "default", "what is allowed")
    for field, info in plugin.parameters.model_fields.items():
        default = "required" if info.is_required() else repr(info.default)
        made.add_row(field, escape(default), escape(allowed(info)))
    console.print()
    console.print(made)
    for metric in getattr(plugin, "metrics", ()):
        console.print(
            escape(
                f"metric {metric.name}: unit {metric.unit}, {metric.better} is better, {metric.reduce} of its samples"
            )
        )
    absent = registry.absent(plugin)
    where = environments.of_stage(name) if kind == "stage" else None
    if where and not where.ready:
        console.print(f"[yellow]{escape(where.missing)}[/]", highlight=False)
    if absent:
        console.print(f"[yellow]needs {', '.join(absent)}:[/] {escape(registry.install_command(absent))}")


def plan(args: Args) -> int:
    """What would be made and measured; imports no torch, downloads nothing."""
    from weighin.harness import rooms
    from weighin.harness.plan import job_names, make_plan
    from weighin.harness.progress import Estimate, duration

    console = Console()
    spec = read_spec(args.spec)
    store = Store(args.store)
    found = make_plan(spec, store, download=False)
    if found is None:
        console.print(
            f"{escape(spec.base.model)} is not on this machine yet: everything is to be done after its download."
        )
        return 0
    report.plan(console, found)
    for environment in found.not_set_up():
        console.print(f"[yellow]{escape(environment.missing)}[/]", highlight=False)
    left = Estimate(job_names(found), store.costs(), rooms.beside(spec.suites)).seconds()
    about = f", about {duration(left)}" if left else ""
    makes, opens = len(found.to_make()), len(found.open_cells())
    console.print(f"\n{makes} checkpoints to make, {opens} of {len(found.cells)} cells to measure{about}")
    return 0


def _elsewhere(module: str, name: str) -> Callable[[Args], int]:
    """A verb that another module holds, imported when it is called."""

    def verb(args: Args) -> int:
        return int(getattr(import_module(f"weighin.harness.{module}"), name)(args))

    return verb


def export(args: Args) -> int:
    """Write a run's content to a file."""
    from weighin.results.export import export as write

    print(write(Store(args.store), args.file, what=args.what, run=args.run, variant=args.variant))
    return 0


def import_(args: Args) -> int:
    """Keep other tools' results; 2 where a file that was named, or all that a directory holds, could not be read."""
    from weighin.results.importing import import_files

    console = Console()
    named = {Path(path).expanduser() for path in args.paths}
    kept, failed = 0, False
    for outcome in import_files(Store(args.store), args.paths, label=args.label, format=args.format):
        report.outcome(console, outcome)
        kept += outcome.error is None
        failed |= outcome.error is not None and outcome.path in named
    return 2 if failed or not kept else 0


def board(args: Args) -> int:
    """Serve the pages until they are stopped, or write them as files. No telemetry, loopback only."""
    needs = ["altair", "vl_convert"] if args.static else ["streamlit", "altair"]
    if registry.missing(needs):
        raise WeighinError(f"board needs {' and '.join(needs)}: {registry.install_command(needs)}")
    if args.static:
        return _static_board(args)
    import sys

    app = Path(__file__).resolve().parent.parent / "leaderboard" / "app.py"
    options = {
        "server.port": str(args.port),
        "server.address": "127.0.0.1",
        "server.headless": str(args.headless).lower(),
        "server.fileWatcherType": "none",
        "browser.gatherUsageStats": "false",
        "client.toolbarMode": "minimal",
        "client.showErrorLinks": "false",
        "theme.light.primaryColor": "#1f83c9",
        "theme.dark.primaryColor": "#1f83c9",
    }
    command = [sys.executable, "-m", "streamlit", "run", str(app), *(f"--{k}={v}" for k, v in options.items())]
    store = str(Store(args.store).path)
    os.execve(sys.executable, command, {**os.environ, "WEIGHIN_STORE": store})  # a signal to us is a signal to it


def _static_board(args: Args) -> int:
    """The pages as files; the leaderboard is named, not imported, as the house has it."""
    out = Path(args.static).expanduser()
    written = import_module("weighin.leaderboard.static").write(Store(args.store), out)
    print(f"{len(written)} pages, begin with {written[0]}")
    return 0


def calibrate(args: Args) -> int:
    """Try the instruments on planted truth; 1 where one of them fails."""
    from weighin.harness.calibrate import calibrate, show

    if "gate" in args.suites:
        from weighin.harness.gating import calibrate as replayed

        if len(args.suites) > 1:
            raise WeighinError("calibrate gate: replays a run's rules and goes alone; name suites in another call")
        return replayed(args)
    console = Console()
    rows = calibrate(console, Store(args.store), args.suites, slow=not args.fast)
    show(console, rows)
    return 0 if all(row.passed for row in rows) else 1


def doctor(args: Args) -> int:
    """What this machine can measure and what is missing."""
    from weighin.harness.doctor import examine

    examine(Console(), Store(args.store))
    return 0


def reference(args: Args) -> int:
    """Train the reference models from scratch."""
    absent = registry.missing(["torch", "transformers", "tokenizers"])
    if absent:
        raise WeighinError(f"reference build needs {', '.join(absent)}: {registry.install_command(absent)}")
    if args.calibration:
        from weighin.harness import exposed

        print(exposed.folder())
        return 0
    from weighin.harness.reference import build

    build(Path(args.out), seed=args.seed, name=args.name)
    return 0


VERBS: dict[str, Callable[[Args], int]] = {
    "list": listing,
    "show": show,
    "plan": plan,
    "run": _elsewhere("running", "run"),
    "gate": _elsewhere("gating", "gate"),
    "compare": _elsewhere("gating", "compare"),
    "front": _elsewhere("fronts", "front"),
    "nightly": _elsewhere("nightly", "nightly"),
    "history": _elsewhere("history", "show_history"),
    "board": board,
    "export": export,
    "import": import_,
    "merge": _elsewhere("sharing", "merge"),
    "serve": _elsewhere("sharing", "serve"),
    "setup": _elsewhere("setting_up", "setup"),
    "calibrate": calibrate,
    "doctor": doctor,
    "reference": reference,
}
