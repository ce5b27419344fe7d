"""Planted truths of the suite rag: an oracle that answers a known share of the questions from its passage."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from weighin.harness import Sample
from weighin.harness.plant import Recovered, Target, plant
from weighin.suites._oracle import Oracle
from weighin.suites._planting import mean, written
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


def _samples(rows: list[dict[str, Any]], right: int, **options: Any) -> list[Sample]:
    """Of an oracle that answers the first `right` questions right whatever it reads."""
    answers = {}
    for number, row in enumerate(rows):
        said = f" {row['answer']}" if number < right else " nobody at all"
        for source in rows:
            answers[PROMPT.format(passages=source["passage"], question=row["question"])] = said
    with written(rows) as file:
        return list(rag(Oracle(answers=answers), data=file, **options))


@plant(needs=NEEDS)
def known_retrieval_and_answers() -> Iterator[Recovered]:
    """Of 20 questions, 20, 10 or 0 can be found by their words, and 20, 5 or 0 are answered right."""
    for findable, right in ((20, 20), (10, 5), (0, 0)):
        found = _samples(_rows(findable), right)
        share, answered = findable / QUESTIONS, right / QUESTIONS
        yield Recovered("hit", f"{share:.0%} can be found", mean(found, "hit"), Target("=", share, 1e-6), planted=share)
        exact = mean(found, "exact_match")
        yield Recovered("exact match", f"{answered:.0%} right", exact, Target("=", answered, 1e-6), planted=answered)


@plant(needs=NEEDS)
def context_by_string_distance() -> Iterator[Recovered]:
    """One passage is read, the right one: precision and recall are 1. Everything said is right: so are the others."""
    found = _samples(_rows(QUESTIONS), QUESTIONS)
    for metric in ("context_precision", "context_recall", "rouge_l", "string_similarity"):
        yield Recovered(metric.replace("_", " "), "all right", mean(found, metric), Target("=", 1, 1e-6), planted=1.0)


class _Rules(BaseHTTPRequestHandler):
    """A judge that goes by rules: a sentence is a statement, and one that the passages hold word by word is true."""

    def do_POST(self) -> None:
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if sent["model"] == "broken":
            self.send_error(400, "no such model")
            return
        # The library's prompt ends with the case in hand, after its examples.
        asked = json.JSONDecoder().raw_decode(sent["messages"][-1]["content"].rpartition("input: ")[2])[0]
        body = json.dumps({"choices": [{"index": 0, "finish_reason": "stop", "message": _ruled(asked)}], **ENVELOPE})
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


ENVELOPE = {"id": "1", "object": "chat.completion", "created": 0, "model": "rules"}


def _ruled(asked: dict[str, Any]) -> dict[str, str]:
    said: dict[str, Any] = {"statements": [asked.get("answer")]}
    if "statements" in asked:
        verdicts = [(one, int(one in asked["context"])) for one in asked["statements"]]
        said = {"statements": [{"statement": one, "reason": "a rule", "verdict": verdict} for one, verdict in verdicts]}
    return {"role": "assistant", "content": json.dumps(said)}


@contextmanager
def rules() -> Iterator[str]:
    """The URL of an endpoint on this machine behind which rules judge; asked for the model `broken` it refuses."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Rules)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()


@plant(needs=(*NEEDS, "openai"))
def known_judge() -> Iterator[Recovered]:
    """A judge that goes by rules, over HTTP: of 20 answers all, 5 or none are in the passage; and one that refuses."""
    with rules() as url:
        for right in (QUESTIONS, 5, 0):
            share = right / QUESTIONS
            found = mean(_samples(_rows(QUESTIONS), right, judge=url, judge_model="rules"), "faithfulness")
            yield Recovered("faithfulness", f"{share:.0%} are told", found, Target("=", share, 1e-6), planted=share)
        found = mean(_samples(_rows(QUESTIONS), 5, judge=url, judge_model="broken", limit=4), "faithfulness")
        yield Recovered("abstention", "a judge that refuses", float(found is None), Target("=", 1), planted=1.0)
