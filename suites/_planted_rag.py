"""Planted truths of the suite rag: an oracle that answers a known share of the questions from its passage."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from weighin.harness.plant import Recovered, Target, plant
from weighin.suites._oracle import Oracle
from weighin.suites.rag import PROMPT, rag

NEEDS = ("ragas", "sklearn", "rapidfuzz", "rouge_score", "sacrebleu")
QUESTIONS = 20


def _rows(findable: int) -> list[dict[str, Any]]:
    """Questions about as many places; those that are not `findable` ask with words that only another passage has."""
    rows = []
    for number in range(QUESTIONS):
        name, other = f"Place{number}", f"Place{(number + 1) % QUESTIONS}"
        asked = f"Who keeps {name}?" if number < findable else f"Who is found at {other}?"
        passage = f"The mill of {name} stands by the river. Its keeper is called Keeper{number}."
        rows.append({"question": asked, "passage": passage, "answer": f"Keeper{number}"})
    return rows


def _means(rows: list[dict[str, Any]], right: int) -> dict[str, float]:
    """Means by metric, of an oracle that answers the first `right` questions right whatever it reads."""
    answers = {}
    for number, row in enumerate(rows):
        said = f" {row['answer']}" if number < right else " nobody at all"
        for source in rows:
            answers[PROMPT.format(passages=source["passage"], question=row["question"])] = said
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "questions.jsonl"
        file.write_text("\n".join(map(json.dumps, rows)) + "\n")
        samples = list(rag(Oracle(answers=answers), data=str(file), limit=QUESTIONS))
    found: dict[str, list[float]] = {}
    for sample in samples:
        if sample.metric and sample.value is not None:
            found.setdefault(sample.metric.name, []).append(sample.value)
    return {name: sum(values) / len(values) for name, values in found.items()}


@plant(needs=NEEDS)
def known_retrieval_and_answers() -> Iterator[Recovered]:
    """Of 20 questions, 20, 10 or 0 can be found by their words, and 20, 5 or 0 are answered right."""
    for findable, right in ((20, 20), (10, 5), (0, 0)):
        found = _means(_rows(findable), right)
        share, answered = findable / QUESTIONS, right / QUESTIONS
        yield Recovered("hit", f"{share:.0%} can be found", found["hit"], Target("=", share, 1e-6), planted=share)
        exact = found["exact_match"]
        yield Recovered("exact match", f"{answered:.0%} right", exact, Target("=", answered, 1e-6), planted=answered)


@plant(needs=NEEDS)
def context_by_string_distance() -> Iterator[Recovered]:
    """One passage is read, the right one: precision and recall are 1. Everything said is right: so are the others."""
    found = _means(_rows(QUESTIONS), QUESTIONS)
    for metric in ("context_precision", "context_recall", "rouge_l", "string_similarity"):
        yield Recovered(metric.replace("_", " "), "all right", found[metric], Target("=", 1, 1e-6), planted=1.0)
