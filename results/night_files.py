"""A night's report in GitHub-flavoured Markdown: alarms first, what changed, the rules, every series."""

from collections.abc import Sequence

from weighin.results.fingerprint import Change
from weighin.results.night import Night
from weighin.results.store import Store
from weighin.results.verdict_files import as_markdown, cell
from weighin.results.watch import Watched

STATES = {0: "✅ green", 1: "❌ alarm", 3: "❔ inconclusive", 4: "❌ not everything was measured"}
NOTHING = "nothing that the fingerprint covers; look at what it does not: load, temperature, firmware"


def night_markdown(store: Store, night: Night) -> str:
    """The whole report. Text from outside is escaped."""
    lines = [f"# Nightly: {STATES[night.code]}", "", f"Run {cell(night.run)}, {cell(against(night))}.", ""]
    if night.cut:
        lines += [f"**Cut short:** {cell(night.cut)}", ""]
    lines += _alarms(night)
    lines += _list("Without a result", [each for each in night.watched if each.kind == "gap"])
    undecided = [each for each in night.watched if each.outcome == "inconclusive" and each.kind != "gap"]
    lines += _list("Undecided", undecided)
    if night.verdicts:
        lines += [as_markdown(store, night.verdicts), ""]
    exact = [each for each in night.watched if each.kind == "exact"]
    moved = [each for each in exact if each.evidence["differ"]]
    same = (
        f"{len(exact) - len(moved)} of {len(exact)} came out as before." if exact else "No night to compare with yet."
    )
    lines += ["## Scores, item by item", "", same, ""]
    lines += _items(moved)
    lines += _table("Series that are watched", [each for each in night.watched if each.kind == "series"])
    lines += _table("Shown, not watched", [each for each in night.watched if each.kind == "shown"])
    return "\n".join(lines).rstrip() + "\n"


def against(night: Night) -> str:
    """What the night was held against, in words."""
    if night.against is None:
        return (
            "the first night: no run of this spec on this class of machine is green yet, so the spec's own rules judge"
        )
    return f"against the last green run {night.against}"


def alarms(night: Night) -> list[tuple[str, str, str, tuple[Change, ...]]]:
    """Each alarm as (variant, metric, why, what changed), the rules' first."""
    ruled = [
        (each.rule.variant, each.metric, each.why, night.changes.get(place, ()))
        for place, each in enumerate(night.verdicts)
        if each.outcome == "fail" and each.rule.role == "gate"
    ]
    return ruled + [(w.variant, w.name, w.why, w.changes) for w in night.watched if w.outcome == "fail"]


def _alarms(night: Night) -> list[str]:
    found = alarms(night)
    lines = ["## Alarms", ""] if found else []
    for variant, metric, why, changes in found:
        lines += [f"**{cell(variant)} · {cell(metric)}**: {cell(why)}", "", "What changed:", ""]
        lines += [f"- {cell(str(change))}" for change in changes] or [f"- {NOTHING}"]
        lines += [""]
    return lines


def _list(title: str, found: Sequence[Watched]) -> list[str]:
    lines = [f"- {cell(each.variant)} · {cell(each.name)}: {cell(each.why)}" for each in found]
    return [f"## {title}", "", *lines, ""] if lines else []


def _table(title: str, found: Sequence[Watched]) -> list[str]:
    if not found:
        return []
    rows = [f"| {cell(each.variant)} | {cell(each.name)} | {cell(each.why)} |" for each in found]
    return [f"## {title}", "", "| variant | metric | state |", "|---|---|---|", *rows, ""]


def _items(moved: Sequence[Watched]) -> list[str]:
    """The metrics whose items differ, with the first few of these."""
    if not moved:
        return []
    lines = ["| variant | metric | what differs | items: old, new |", "|---|---|---|---|"]
    for each in moved:
        items = "; ".join(f"{item[:12]}: {old}, {new}" for item, old, new in each.evidence["worst"])
        lines.append(f"| {cell(each.variant)} | {cell(each.name)} | {cell(each.why)} | {cell(items)} |")
    return [*lines, ""]
