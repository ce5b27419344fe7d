"""What the command line prints of a store: scores, fronts, verdicts, comparisons. Plain text in a pipe."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from weighin.harness.plan import Plan
from weighin.results.compare import Comparison, Report
from weighin.results.errors import WeighinError
from weighin.results.front import PLACES, Front, front
from weighin.results.front import in_words as whole_in_words
from weighin.results.gate import Verdict, exit_code, sentence
from weighin.results.importing import Outcome
from weighin.results.instruments import in_words, of_run
from weighin.results.lookup import quality
from weighin.results.rates import in_words as gate_errors
from weighin.results.render import interval, quantity
from weighin.results.store import Store

ARROWS = {"higher": "↑", "lower": "↓", "none": ""}
"""Which way is better."""
OUTCOMES = {"pass": "[green]PASS[/]", "fail": "[red]FAIL[/]", "inconclusive": "[yellow]INCONCLUSIVE[/]"}
RELEASE = {0: "green", 1: "red", 3: "yellow"}
COSTS = ("memory.disk", "latency.tpot")


def table(*columns: str) -> Table:
    """A table without lines, whose cells fold rather than lose text."""
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        made.add_column(column, overflow="fold", justify="right" if column == "n" else "left")
    return made


def scores(console: Console, store: Store, run: str) -> None:
    """Every metric of every variant with unit, interval and n, or the reason why it has none."""
    rows = store.rows(
        """select suite, metric, unit, better, variant, value, ci_low, ci_high, ci_reason, n, status, reason, source,
               eligible, eligible_reason, position
           from scores where run_id = ? order by suite, metric = '*', place, metric, position""",
        [run],
    )
    width = max((len(row["variant"]) for row in rows), default=0)
    for suite, of_suite in groupby(rows, key=lambda row: row["suite"]):
        console.print(f"\n[bold]{escape(suite)}[/]")
        for metric, group in groupby(of_suite, key=lambda row: row["metric"]):
            lines = list(group)
            if metric == "*":
                _silent(console, lines)
                continue
            console.print(f"  {escape(metric)} {ARROWS[lines[0]['better']]}", style="cyan", highlight=False)
            _values(console, lines, min(width, 17))


def _silent(console: Console, rows: Sequence[dict[str, Any]]) -> None:
    """Variants that a suite has no number for at all, those with one reason together."""
    by_reason: dict[str, list[str]] = {}
    for row in rows:
        by_reason.setdefault(_note(row), []).append(row["variant"])
    for note, variants in by_reason.items():
        console.print(f"  {escape(note)}", style="cyan", highlight=False)
        console.print(f"    {escape(', '.join(variants))}", highlight=False)


def _values(console: Console, rows: Sequence[dict[str, Any]], width: int) -> None:
    """A variant's value, interval and n, and what is to be known of them."""
    indent = " " * (width + 6)
    for row in rows:
        name = _plain(row["variant"])
        begin = f"    {name}{' ' * (width - cell_len(name))}  "
        if cell_len(begin) > len(indent):
            begin = f"{begin.rstrip()}\n{indent}"
        lines = _valued(console, row, max(console.width - len(indent), 20))
        console.out(begin + f"\n{indent}".join(lines), highlight=False)


def _valued(console: Console, row: dict[str, Any], room: int) -> list[str]:
    """A note stands behind its value where `room` allows it, else below it, and in the place of a value that is not."""
    note = _plain(_note(row))
    value = interval(row["value"], row["ci_low"], row["ci_high"], row["unit"] or "1")
    if row["value"] is None:
        return [f"{' ' if at else value}  {line}".rstrip() for at, line in enumerate(_folded(console, note, room - 3))]
    count = f"n={row['n']}" if row["n"] else ""
    line = f"{value:38}  {count:7}"
    if not note or len(line) + 2 + cell_len(note) <= room:
        return [f"{line}  {note}".rstrip()]
    return [line.rstrip(), *_folded(console, note, room)]


def _folded(console: Console, text: str, room: int) -> list[str]:
    return [line.plain.rstrip() for line in Text(text).wrap(console, room, overflow="fold")]


def _note(row: dict[str, Any]) -> str:
    if row["status"] != "ok":
        return f"{row['status']}: {row['reason']}"
    notes = [] if row["source"] == "measured" else [row["source"]]
    if not row["eligible"] and row["eligible_reason"] not in notes:
        notes.append(row["eligible_reason"].split(":")[0])
    if row["ci_low"] is None and row["ci_reason"] not in ("one value", "no interval for a maximum"):
        notes.append(f"no interval: {row['ci_reason']}")
    return "; ".join(notes)


def fronts(console: Console, store: Store, run: str) -> None:
    """The Pareto fronts of quality against each cost that was measured, in short; `weighin front` says more."""
    best = quality(store.rows("select * from scores where run_id = ?", [run]))
    for cost in COSTS if best else ():
        try:
            found = front(store, (cost, str(best)), run)
        except WeighinError:
            continue
        _front(console, found)


def _front(console: Console, found: Front) -> None:
    x, y = found.axes
    console.print(f"\n[bold]Pareto front[/] of {escape(y.name)} against {escape(x.name)}")
    for place, name in PLACES.items():
        rows = found.those(place)
        who = [f"{row.variant} ({row.why})" if row.why else row.variant for row in rows]
        if who:
            console.print(f"  {name}: {escape('; '.join(who))}", highlight=False)
    for line in whole_in_words(found) if found.volume.value is not None else ():
        console.print(f"  {escape(line)}", highlight=False)


def verdicts(console: Console, found: Sequence[Verdict]) -> None:
    """One line a rule, then what it means for the release."""
    made = table("verdict", "rule", "why")
    for verdict in found:
        rule = verdict.rule
        role = " (watch)" if rule.role == "watch" else ""
        told = f"{verdict.metric}: {rule}{role}"
        made.add_row(OUTCOMES[verdict.outcome], escape(told), escape(verdict.why))
    console.print(made)
    console.print(sentence(found), style=RELEASE[exit_code(found)])


def instruments(console: Console, store: Store, run: str, suites: set[str]) -> None:
    """Whether the suites that were judged have recovered planted truth on the run's machine, and the gate's errors."""
    rows = [row for row in of_run(store, run) if row["suite"] in suites]
    console.print("\n[bold]Instruments[/]")
    for row, said in zip(rows, in_words(rows), strict=True):
        console.print(f"  {'[green]✓[/]' if row['proven'] else '[yellow]?[/]'} {escape(said)}", highlight=False)
    console.print(f"  {escape(gate_errors(store, run))}", highlight=False)


def origin(console: Console, store: Store, run: str) -> None:
    """Where a run came from that another tool measured; nothing for one of ours."""
    (row,) = store.rows("select spec->'origin' as origin from runs where run_id = ?", [run])
    if told := row["origin"]:
        files = ", ".join(str(file.get("path")) for file in told.get("files", ()))
        console.print(f"[bold]imported[/] from {_shown(told['tool'])} {_shown(told['version'])}: {_shown(files)}")


def _shown(text: str) -> str:
    """Outside text, names of files among it, as nothing but text: no markup and no command to the terminal."""
    return escape(_plain(text))


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() else "�" for c in text)


def outcome(console: Console, found: Outcome) -> None:
    """What became of a file that was to be imported, and what must be known of it."""
    if found.error:
        console.print(f"[red]not imported[/] {_shown(found.error)}", highlight=False)
        return
    held = "imported" if found.fresh else "held already"
    many = f" and {len(found.labels) - 1} more" if len(found.labels) > 1 else ""
    said = f"{found.origin}: {''.join(found.labels[:1])}{many}, run {found.run_id}"
    console.print(f"[green]{held}[/] {_shown(said)}", highlight=False)
    for note in found.notes:
        console.print(f"  [yellow]{_shown(note)}[/]", highlight=False)


def comparison(console: Console, found: Report) -> None:
    """Paired differences of two variants suite by suite, then what could not be compared and why."""
    for note in found.notes:
        console.print(f"[yellow]Note:[/] {escape(note)}")
    console.print(f"{escape(found.a.name)} → {escape(found.b.name)}", style="bold", highlight=False)
    for suite, rows in groupby(found.comparisons, key=lambda row: row.suite):
        console.print(f"\n[bold]{escape(suite)}[/]")
        for row in rows:
            console.print(f"  {escape(row.metric)} {ARROWS[row.better]}", style="cyan", highlight=False)
            for line in _flowing(_difference(row), console.width - 4):
                console.print(Padding(escape(line), (0, 0, 0, 4), expand=False), highlight=False)
    console.print("\n[dim]A positive drop means that the second is worse; flips: right to wrong, wrong to right.[/]")
    console.print("[dim]Seen from: the least drop that these items would show with 80 % power.[/]")
    by_reason: dict[str, list[str]] = {}
    for refusal in found.refusals:
        whole = refusal.metric == "*"
        by_reason.setdefault(refusal.reason, []).append(refusal.suite if whole else f"{refusal.suite}.{refusal.metric}")
    if by_reason:
        console.print("\n[yellow]not compared[/]")
    for reason, named in by_reason.items():
        console.print(Padding(escape(f"{', '.join(named)}: {reason}"), (0, 0, 0, 2), expand=False), highlight=False)


def _flowing(parts: Sequence[str], width: int) -> list[str]:
    """Phrases on as few lines as hold them, none of them broken where it fits."""
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + 2 + len(part) <= width:
            lines[-1] += f"  {part}"
        else:
            lines.append(part)
    return lines


def _difference(row: Comparison) -> list[str]:
    """One metric's values, drop, flips and test, a phrase each."""
    unit = "1" if row.scale == "log" else row.unit
    said = [f"{quantity(row.value_a, row.unit)} → {quantity(row.value_b, row.unit)}"]
    told = "ln ratio" if row.scale == "log" else "less by" if row.better == "none" else "drop"
    said.append(f"{told} {interval(row.drop, row.low, row.high, unit)}" if row.caveat is None else f"({row.caveat})")
    if row.mde is not None:
        said.append(f"seen from {quantity(row.mde, unit)}")
    if row.flips_worse is not None:
        said.append(f"flips −{row.flips_worse} +{row.flips_better}")
    if row.p_two_sided is not None:
        said.append(f"p {row.p_two_sided:.2g}")
    if row.waived:
        said.append(f"waived: {', '.join(row.waived)}")
    return [*said, f"n={row.n}"]


def plan(console: Console, found: Plan) -> None:
    """Each variant's chain and suites: what is held (✓) and what is to do (•)."""
    made = table("variant", "chain", "suites")
    for label, chain in found.chains.items():
        steps = [f"{'✓' if link.made else '•'} {link.step.stage}" for link in chain]
        cells = [f"{'✓' if cell.held else '•'} {cell.suite}" for cell in found.cells if cell.label == label]
        root = [found.spec.roots[label]] if label in found.spec.roots else []
        chained = " → ".join([*root, *steps]) or found.spec.base.model
        made.add_row(escape(label), escape(chained), escape("  ".join(cells)))
    console.print(made)
    console.print("[dim]✓ held already   • to do[/]")
