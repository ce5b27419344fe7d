"""The gate's verdicts for machines and for a pull request: JSON, JUnit XML, GitHub-flavoured Markdown."""

import json
from collections.abc import Callable, Sequence
from typing import Any
from xml.etree import ElementTree

from weighin.results.flips import worst_flips
from weighin.results.gate import Verdict, exit_code
from weighin.results.ledger import figures
from weighin.results.lookup import Side
from weighin.results.rates import in_words
from weighin.results.render import MISSING, interval, quantity
from weighin.results.store import Store

RELEASE = {0: "pass", 1: "fail", 3: "inconclusive"}
SIGNS = {"pass": "✅ pass", "fail": "❌ fail", "inconclusive": "❔ inconclusive"}
MOST = 300
"""Characters of a prompt that are shown."""


def as_json(store: Store, verdicts: Sequence[Verdict]) -> str:
    """One object: `release`, `exit_code`, `errors` (the gate's own, on this data), `verdicts` with all figures."""
    rows = [figures(verdict) for verdict in verdicts]
    code = exit_code(verdicts)
    told = {"release": RELEASE[code], "exit_code": code, "errors": _errors(store, verdicts), "verdicts": rows}
    return json.dumps(told, indent=2, default=str) + "\n"


def _errors(store: Store, verdicts: Sequence[Verdict]) -> list[str]:
    """What is known of the gate's error rates on the data of the judged runs."""
    runs = dict.fromkeys(side.run_id for verdict in verdicts for side in verdict.sides[-1:])
    return [in_words(store, run) for run in runs if run]


def as_junit(store: Store, verdicts: Sequence[Verdict]) -> str:
    """A test suite with a case a rule: a fail is a failure, what is inconclusive an error, a watched rule is skipped
    unless it passes."""
    suite = ElementTree.Element("testsuite", name="weighin gate", tests=str(len(verdicts)))
    for verdict in verdicts:
        name = _plain(f"{verdict.metric}: {verdict.rule}")
        case = ElementTree.SubElement(suite, "testcase", classname=f"weighin.{verdict.rule.variant}", name=name)
        if verdict.outcome == "pass":
            continue
        kind = "failure" if verdict.outcome == "fail" else "error"
        if verdict.rule.role == "watch":
            kind = "skipped"
        told = ElementTree.SubElement(case, kind, message=_plain(verdict.why))
        told.text = _plain(f"{verdict.outcome}: {verdict.why}")
    for kind, attribute in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
        suite.set(attribute, str(len(suite.findall(f".//{kind}"))))
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _plain(text: str) -> str:
    """Text without the control characters that XML does not know."""
    return "".join(
        c for c in text if c in "\t\n" or (ord(c) >= 32 and not 0xD800 <= ord(c) < 0xE000 and ord(c) < 0xFFFE)
    )


def as_markdown(store: Store, verdicts: Sequence[Verdict]) -> str:
    """A job summary: the release, a table of old and new, the worst flipped items, and how the variants were made."""
    lines = [f"## Weighin: {SIGNS[RELEASE[exit_code(verdicts)]]}", "", *_table(verdicts), ""]
    lines += [f"{cell(said)}.\n" for said in _errors(store, verdicts)]
    lines += [line for verdict in verdicts for line in _flips(store, verdict)]
    judged = {side.name: side for verdict in verdicts for side in verdict.sides[-1:]}
    lines += [line for side in judged.values() for line in _lineage(store, side)]
    return "\n".join(lines).rstrip() + "\n"


def _table(verdicts: Sequence[Verdict]) -> list[str]:
    lines = [
        "| verdict | metric | variant | old | new | drop [95 %] | seen from | why |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for verdict in verdicts:
        found = verdict.comparison
        role = " (watch)" if verdict.rule.role == "watch" else ""
        cells = [SIGNS[verdict.outcome] + role, verdict.metric, str(verdict.rule)]
        if found is None:
            cells += [MISSING] * 4
        else:
            unit = "1" if found.scale == "log" else found.unit
            cells += [quantity(found.value_a, found.unit), quantity(found.value_b, found.unit)]
            cells += [interval(found.drop, found.low, found.high, unit), quantity(found.mde, unit)]
        why = verdict.why + (f"; waived: {', '.join(verdict.waived)}" if verdict.waived else "")
        lines.append("| " + " | ".join(map(cell, [*cells, why])) + " |")
    return [*lines, "", "*Seen from*: the least drop that these items would show with 80 % power."]


def _flips(store: Store, verdict: Verdict) -> list[str]:
    """The worst five items of a rule that does not pass."""
    found = verdict.comparison
    if found is None or not found.flips_worse or verdict.outcome == "pass" or len(verdict.sides) != 2:
        return []
    ids = [str(side.cells[found.suite].evaluation_id) for side in verdict.sides]
    lines = [f"<details><summary>{cell(verdict.metric)}: right before, wrong now</summary>", ""]
    lines += ["| item | prompt | right answer | margin fell by [nat] |", "|---|---|---|---|"]
    for flip in worst_flips(store, found.metric, (ids[0], ids[1])):
        fell = MISSING if flip.fell is None else f"{flip.fell:.2f}"
        lines.append(f"| {cell(flip.item[:12])} | {cell(flip.prompt[-MOST:])} | {cell(flip.target)} | {fell} |")
    return [*lines, "", "</details>", ""]


def _lineage(store: Store, side: Side) -> list[str]:
    """How a variant was made, from its base on."""
    steps: list[str] = []
    at = store.variant(side.variant_key) if side.variant_key else None
    while at is not None:
        params: dict[str, Any] = dict(at.params)
        said = ", ".join(f"{name}={value}" for name, value in params.items() if value is not None)
        steps.insert(0, f"{at.stage or 'base'} ({said})" if said else at.stage or "base")
        at = store.variant(at.parent_key) if at.parent_key else None
    return [f"**{cell(side.name)}**: {cell(' → '.join(steps) or 'not made')}", ""]


_AS_TEXT = {ord(sign): f"&#{ord(sign)};" for sign in "&<>\\`*_[]|~#!@"}
"""Every sign that means something to HTML or Markdown, by its number. One pass: these hold `&` and `#` themselves."""


def cell(text: str) -> str:
    """Outside text as plain words in a cell: neither HTML nor Markdown nor a new line."""
    return " ".join(text.translate(_AS_TEXT).split())


FORMATS: dict[str, Callable[[Store, Sequence[Verdict]], str]] = {
    "json": as_json,
    "junit": as_junit,
    "markdown": as_markdown,
}
