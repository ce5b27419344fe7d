"""Planted truths of the suite accuracy: an oracle whose right answers and whose probabilities are written down."""

import math
from collections.abc import Iterator
from typing import Any

from weighin.harness.plant import Recovered, Target, plant
from weighin.suites._lm_eval import Options, load_tasks, subset
from weighin.suites._oracle import Oracle
from weighin.suites.accuracy import accuracy

TASK = "world_facts"
DOCUMENTS = 40


def _documents() -> list[tuple[str, dict[str, Any]]]:
    """Questions of the reference world as lm-eval asks them, each with its row."""
    task = load_tasks([TASK], Options())["tasks"][TASK]
    rows = list(task.eval_docs)
    return [(task.doc_to_text(rows[place]), rows[place]) for place in subset(task, DOCUMENTS, seed=0)]


@plant(needs=("lm_eval", "datasets"))
def known_answers() -> Iterator[Recovered]:
    """An oracle that finds the right answer likeliest in a known share of the questions."""
    documents = _documents()
    for share in (0.0, 0.25, 1.0):
        beliefs = {}
        for number, (text, row) in enumerate(documents):
            likeliest = row["gold"] if number < share * len(documents) else (row["gold"] + 1) % 4
            beliefs[text] = {f" {c}": 0.4 if i == likeliest else 0.2 for i, c in enumerate(row["choices"])}
        samples = accuracy(Oracle(beliefs), tasks=[TASK], limit=DOCUMENTS)
        found = [s.value for s in samples if s.metric and s.metric.name == f"{TASK}/acc" and s.value is not None]
        value = sum(found) / len(found)
        yield Recovered("accuracy", f"{share:.0%} right", value, Target("=", share, 1e-6), planted=share)


@plant(needs=("lm_eval", "datasets"))
def known_likelihoods() -> Iterator[Recovered]:
    """An oracle that finds every right answer so likely, as its samples tell."""
    documents = _documents()
    for planted in (0.9, 0.5, 1e-3):
        beliefs = {
            text: {f" {c}": planted if i == row["gold"] else (1 - planted) / 4 for i, c in enumerate(row["choices"])}
            for text, row in documents
        }
        details = [s.detail for s in accuracy(Oracle(beliefs), tasks=[TASK], limit=DOCUMENTS) if s.detail]
        shown = [detail["responses"][int(detail["target"])][0] for detail in details]
        value = math.exp(sum(shown) / len(shown))
        yield Recovered("likelihood", f"P(right) = {planted:g}", value, Target("=", planted, 1e-6), planted=planted)
