"""`weighin board --static OUT/`: the board's tables and charts as files that need no server and no network."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from weighin.leaderboard import bars, cells, charts, flips, frames, fronts, gating, history, html, lineage, tables
from weighin.leaderboard.frames import Board
from weighin.leaderboard.html import Part
from weighin.results.compare import compare
from weighin.results.errors import WeighinError
from weighin.results.front import front
from weighin.results.gate import sentence
from weighin.results.history import history as read_history
from weighin.results.instruments import of_run, tries
from weighin.results.items import outputs
from weighin.results.lookup import quality
from weighin.results.rates import in_words as gate_errors
from weighin.results.since import alarms, since_green, timeline
from weighin.results.store import Store
from weighin.results.tiers import rank

MOST = 60
"""Variants that get a page of their own, the first of the spec; the tables hold all of them."""
ITEMS = 20
"""Answers that a variant's page shows."""


def write(store: Store, out: Path) -> list[Path]:
    """Write the newest run's board into the directory `out`, and return the files.

    Raises `WeighinError` for a store that cannot be shown and for a directory that cannot be written.
    """
    run = frames.runs(store)[0]
    board = frames.read_board(store, run)
    front_parts = _front_parts(store, board)  # on two pages, and dear
    pages: dict[str, tuple[str, Callable[[Store, Board], list[Part]]]] = {
        "index.html": ("Overview", lambda *given: [*_overview(*given), *front_parts]),
        "leaderboard.html": ("Leaderboard", _leaderboard),
        "pareto.html": ("Pareto front", lambda *_: [html.text(frames.run_sentence(board)), *front_parts]),
        "nightly.html": ("Nightly", _nightly),
        "instruments.html": ("Instruments", _instruments),
        "runs.html": ("Runs", _runs),
    }
    links = [(name, title) for name, (title, _) in pages.items()]
    documents = {name: html.page(title, links, make(store, board)) for name, (title, make) in pages.items()}
    for name, label in _addresses(board).items():
        documents[name] = html.page(frames.short(label), links, _variant(store, board, label))
    return _keep(out, documents)


def _keep(out: Path, documents: dict[str, str]) -> list[Path]:
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, document in documents.items():
            (out / name).write_text(document, encoding="utf-8")
    except OSError as error:
        raise WeighinError(f"{out}: cannot be written: {error.strerror or error}") from error
    return [out / name for name in documents]


def _addresses(board: Board) -> dict[str, str]:
    """A file for each of the first variants; no outside text enters a file's name."""
    return {f"variant-{place}.html": label for place, label in enumerate(board.variants[:MOST])}


def _links(board: Board) -> dict[str, str]:
    return {label: name for name, label in _addresses(board).items()}


def _overview(store: Store, board: Board) -> list[Part]:
    parts = [html.text(frames.run_sentence(board))]
    try:
        judged = frames.verdicts(store, board.run)
        parts += [html.verdict(sentence(judged)), html.table(gating.table(judged), "Each rule of the gate")]
    except WeighinError as error:
        parts.append(html.text(error))
    parts += [html.text(gate_errors(store, board.run["run_id"])), html.heading("Since the last green run")]
    since = since_green(store, board.run["run_id"])
    if since.green is None:
        parts.append(html.text(f"There is nothing to hold it against: {since.why}."))
    else:
        rows = [(change.field, change.old, change.new) for change in since.changes]
        rows += [("variant", "", label) for label in since.labels]
        parts += [html.text(f"Held against run {since.green}."),
                  html.table(pd.DataFrame(rows, columns=["field", "then", "now"]), "What changed")]  # fmt: skip
    return parts


def _leaderboard(store: Store, board: Board) -> list[Part]:
    best = quality(board.scores)
    parts = [html.text(frames.run_sentence(board))]
    if best is not None:
        ranking = rank(store, best, board.run["run_id"])
        ordered = tables.ordered(board, ranking, set(board.variants))
        _, words = tables.ranked(ordered, ranking, frames.headlines(board, board.measures))
        suite, _, metric = best.partition(".")
        limits = [tables.limits(board, label, suite, metric) for label in ordered.variants]
        over = bars.scale(limits)
        drawn = suite, "95 % interval"
        words[drawn] = [bars.svg(each, over) for each in limits]
        shown = words.reset_index()
        name = f"{suite} 95 % interval"
        tiers = "Within a tier nobody is shown to be worse than its best (paired, one-sided, Holm-adjusted, 5 %)."
        told = f"Ranked by {best}. " + (f"No tiers: {ranking.caveat}." if ranking.caveat else tiers)
        parts += [html.text(told), html.table(shown, "Variants, best first", links=_links(board), raw=(name,))]
    parts += [html.heading("What has no number, and why"), html.table(tables.absences(board), "What has no number")]
    return [*parts, html.heading("Every figure, in base units"), html.table(tables.figures(board), "Every figure")]


def _front_parts(store: Store, board: Board) -> list[Part]:
    _, cost, best = frames.axes(board)
    if cost is None or best is None:
        return [html.text("A front needs a metric where less is better and one where more is.")]
    try:
        found = fronts.build(board, front(store, (cost.name, best.name), board.run["run_id"]), cost, best)
    except WeighinError as error:
        return [html.text(error)]
    parts = [html.heading(f"The front of {best.name} against {cost.name}")]
    if len(found.drawn):
        chains = fronts.chains(board, frames.parents(store))
        drawn = charts.pareto(found, log_x=fronts.wide(found.drawn, "x"), chains=chains)
        parts.append(html.figure(drawn, fronts.in_words(found).splitlines()[0]))
    listed = html.table(fronts.listed(found), "Every variant with its place", links=_links(board))
    return [*parts, html.text(fronts.in_words(found)), listed]


def _variant(store: Store, board: Board, label: str) -> list[Part]:
    card = next(card for card in board.cards if card["variant"] == label)
    if card["variant_key"] is None:
        return [html.text("It was not made: a stage of its chain failed.")]
    steps = lineage.chain(store, card["variant_key"], board.run["machine_key"])
    parts = [html.heading("How it was made"), html.table(lineage.table(board, steps), "The chain of stages"),
             html.text(lineage.sums(board, steps) or ""), html.table(lineage.card(card), "Identity")]  # fmt: skip
    other = card["parent"] or board.variants[0]
    if other != label and len(board.variants) <= ITEMS:
        report = compare(store, other, label, run=board.run["run_id"])
        parts += [html.heading("Beside its parent or base"), html.text(flips.sentence(report)),
                  html.table(flips.differences(report), "Paired differences")]  # fmt: skip
    figures = tables.of_variant(lineage.figures(board, label))
    parts += [html.heading("What was measured"), html.table(figures, "Every figure"), html.heading("What it says")]
    return [*parts, *_outputs(store, board, label)]


def _outputs(store: Store, board: Board, label: str) -> list[Part]:
    for cell in board.cells:
        if cell["variant"] == label and cell["status"] == "ok" and cell["evaluation_id"]:
            said = outputs(store, cell["evaluation_id"], most=ITEMS)
            if said:
                rows = [(each.prompt, each.output, each.target) for each in said]
                frame = pd.DataFrame(rows, columns=["prompt", "output", "right"])
                return [html.text(f"Asked by {cell['suite']}."), html.table(frame, "Some of its answers")]
    return [html.text("No suite keeps text of it.")]


def _nightly(store: Store, board: Board) -> list[Part]:
    spec = board.run["spec_name"]
    rows = [(f"{a.at:%Y-%m-%d %H:%M}", a.variant, a.metric, a.why, "; ".join(a.causes)) for a in alarms(store, spec)]
    columns = ["night (UTC)", "variant", "metric", "why", "what had changed"]
    parts = [html.heading("Alarms"), html.table(pd.DataFrame(rows, columns=columns), "Alarms")]
    best = quality(board.scores)
    for series in (
        read_history(store, best, run=board.run["run_id"])[:ITEMS] if best and _has_nights(store, spec) else ()
    ):
        parts.append(html.heading(f"{series.name}: {frames.short(series.variant)}"))
        if len(series.nights) >= history.FEWEST:
            parts.append(html.figure(history.chart(series), history.in_words(series)))
        parts += [html.text(history.in_words(series)), html.table(history.table(series), "The series")]
    found = [each for each in timeline(store, spec, board.run["machine_key"]) if each.changes]
    marks = [(f"{each.at:%Y-%m-%d %H:%M}", each.run, "; ".join(map(str, each.changes))) for each in found]
    frame = pd.DataFrame(marks, columns=["night (UTC)", "run", "what"])
    return [*parts, html.heading("The machine and its software"), html.table(frame, "Where the fingerprint changed")]


def _has_nights(store: Store, spec: str) -> bool:
    return len(store.rows("select run_id from runs where spec_name = ? limit 2", [spec])) > 1


def _instruments(store: Store, board: Board) -> list[Part]:
    run = board.run["run_id"]
    parts = [html.table(tables.instruments(of_run(store, run)), "Whether each suite has recovered planted truth")]
    parts.append(html.text(gate_errors(store, run)))
    return [*parts, html.heading("Every planted truth"), html.table(tables.tries(tries(store, run)), "Every try")]


def _runs(store: Store, board: Board) -> list[Part]:
    _, told = cells.progress(board)
    found: Sequence[Part] = [
        html.text(frames.run_sentence(board)), html.text(told), html.heading("Cells without a figure"),
        html.table(cells.wanting(board).drop(columns="log"), "Cells without a figure"),
        html.heading("What it cost"), html.table(cells.cost(board), "Seconds by suite"),
        html.heading("Every run"), html.table(cells.listed(cells.runs(store)), "Every run"),
    ]  # fmt: skip
    return list(found)
