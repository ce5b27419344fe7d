"""The verbs that judge: `gate` on a run's rules, `compare` on two variants."""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from weighin.harness import report
from weighin.harness.calibrate import show as calibration_table
from weighin.harness.looks import look_of
from weighin.harness.spec import Spec, read_spec
from weighin.results import ledger, rates
from weighin.results.compare import Report
from weighin.results.compare import compare as paired
from weighin.results.errors import WeighinError
from weighin.results.gate import Bench, Verdict, exit_code, judge
from weighin.results.lookup import Side, run_named, side
from weighin.results.replay import replay
from weighin.results.rows import WaiverRow
from weighin.results.rules import Rule, rules_of
from weighin.results.sequential import look_alpha
from weighin.results.store import Store
from weighin.results.verdict_files import FORMATS

LAST_GREEN = "last-green"


def gate(args: argparse.Namespace) -> int:
    """Judge the rules: 0 every one passes, 1 one fails, 3 undecided."""
    spec, store = read_spec(args.spec), Store(args.store)
    if not spec.gate:
        raise WeighinError(
            f"{args.spec}: has no `gate:`; a rule reads {{metric: SUITE.METRIC, variant: LABEL, margin: 0.02}}"
        )
    run = args.run or newest(store, spec)
    rules, against = _against(store, spec, run, args.against)
    found = judged(store, spec, rules, (run, against), args.waive)
    if args.format != "table":
        _written(args.out or "-", FORMATS[args.format](store, found))
    elif args.out:
        raise WeighinError(f"--out {args.out}: needs a --format: {', '.join(FORMATS)}")
    if args.format == "table" or (args.out and args.out != "-"):
        console = Console()
        report.verdicts(console, found)
        report.instruments(console, store, run, {verdict.metric.partition(".")[0] for verdict in found})
    return exit_code(found)


def newest(store: Store, spec: Spec) -> str:
    """The newest run of a spec. Raises WeighinError where there is none."""
    rows = store.rows(
        "select run_id from runs where spec_name = ? order by started_at desc, run_id desc limit 1", [spec.name]
    )
    if not rows:
        raise WeighinError(f"{store.path}: no run of {spec.name} yet; run `weighin run {spec.name}` first")
    return str(rows[0]["run_id"])


def judged(
    store: Store, spec: Spec, rules: Sequence[Rule], runs: tuple[str, str | None], waive: Sequence[str] = ()
) -> list[Verdict]:
    """The verdicts on the first of `runs`, against the second where there is one; kept, with what was waived."""
    run, against = runs
    kept = store.rows("select spec from runs where run_id = ?", [run_named(store, run)])[0]["spec"]
    alpha = look_alpha(spec.looks) if spec.looks else Bench.alpha
    found = judge(store, rules, run, Bench(against, waive, alpha))
    ledger.keep(store, run, found, against=against, look=look_of(kept))
    keep_waivers(store, found)
    return found


def keep_waivers(store: Store, found: Sequence[Verdict]) -> None:
    """Keep what was waived in verdicts."""
    for verdict in found:
        if verdict.waived:
            _keep_waiver(store, "gate", verdict.metric, verdict.sides, verdict.waived)


def _keep_waiver(store: Store, verb: str, metric: str, sides: Sequence[Side], fields: Sequence[str]) -> None:
    suite = metric.partition(".")[0]
    first, second = (str(each.cells[suite].evaluation_id) for each in sides)
    store.add_waiver(WaiverRow(datetime.now(UTC), verb, metric, first, second, fields))


def _against(store: Store, spec: Spec, run: str, named: str | None) -> tuple[list[Rule], str | None]:
    """The rules, and the run that their variants are held against, for `--against RUN|VARIANT|last-green`."""
    if named is None:
        return list(spec.gate), None
    if named == LAST_GREEN:
        machine = store.rows("select machine_key from runs where run_id = ?", [run_named(store, run)])[0]["machine_key"]
        return list(spec.gate), ledger.last_green(store, spec.name, machine, run)
    if store.rows("select 1 from runs where run_id = ?", [named]):
        return list(spec.gate), named
    side(store, named, run)  # says what is allowed
    rules = [dataclasses.replace(rule, against=named) for rule in spec.gate if rule.variant != named]
    if not rules:
        raise WeighinError(f"--against {named}: every rule is about {named} itself")
    return rules, None


def _written(place: str, text: str) -> None:
    if place == "-":
        sys.stdout.write(text)
        return
    try:
        Path(place).expanduser().write_text(text, encoding="utf-8")
    except OSError as error:
        raise WeighinError(f"--out {place}: cannot be written: {error.strerror or error}") from None


def calibrate(args: argparse.Namespace) -> int:
    """Replay a run's rules on its own data; 1 where alarms or unsafe passes are surely more than 5 %."""
    console, store = Console(), Store(args.store)
    run = run_named(store, args.run)
    rules = rules_of(store.rows("select spec from runs where run_id = ?", [run])[0]["spec"])[0]
    if not any(rule.role == "gate" for rule in rules):
        raise WeighinError(f"run {run}: its spec has no gate rules to replay")
    began = time.monotonic()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("replays", total=args.replays)
        found = replay(store, rules, run, draws=args.replays, progress=lambda done: bar.update(task, completed=done))
    rows = rates.kept(store, run, found, time.monotonic() - began)
    calibration_table(console, rows)
    console.print(f"\nWhere nothing had changed, all rules passed in {found.releases.value:.1%} of the replays.")
    for reason in found.left_out:
        console.print(f"[yellow]not replayed[/] {escape(reason)}", highlight=False)
    return 0 if all(row.passed for row in rows) else 1


def compare(args: argparse.Namespace) -> int:
    """Paired differences; 2 where nothing could be compared."""
    store = Store(args.store)
    found = paired(store, args.a, args.b, run=args.run, waive=args.waive)
    for each in found.comparisons:
        if each.waived:
            _keep_waiver(store, "compare", each.name, (found.a, found.b), each.waived)
    if args.json:
        print(json.dumps(comparison_as_json(found), indent=2, ensure_ascii=False))
    else:
        report.comparison(Console(), found)
    return 0 if found.comparisons else 2


def comparison_as_json(found: Report) -> dict[str, Any]:
    """Both sides, every comparison with all its figures in base units, and what could not be compared and why."""
    sides = {
        which: {"name": each.name, "run": each.run_id, "variant_key": each.variant_key}
        for which, each in (("a", found.a), ("b", found.b))
    }
    rows = [dataclasses.asdict(each) for each in found.comparisons]
    refused = [dataclasses.asdict(each) for each in found.refusals]
    return sides | {"comparisons": rows, "refusals": refused, "waived": list(found.waived), "notes": list(found.notes)}
