"""The rows that each way of tuning learns from, and the rewards that GRPO may pay."""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from weighin.harness import WeighinError
from weighin.harness.text import Example, Form

Method = Literal["sft", "dpo", "kto", "grpo"]
Reward = Literal["answer", "prefix", "brevity", "variety"]
Row = dict[str, Any]

SAID = (str, list)
PAIR: list[Form] = [{"prompt": SAID, "chosen": SAID, "rejected": SAID}, {"chosen": (list,), "rejected": (list,)}]
FORMS: dict[Method, list[Form]] = {
    "sft": [{"prompt": SAID, "completion": SAID}, {"messages": (list,)}, {"text": (str,)}, {"page": (str,)}],
    "dpo": PAIR,
    "kto": [{"prompt": SAID, "completion": SAID, "label": (bool,)}, *PAIR],
    "grpo": [{"prompt": SAID}],
}
"""What a row must hold, by method; a conversation is a list of messages."""
DATA: dict[str, str] = {
    "sft": "reference:tune",
    "dpo": "reference:preferences",
    "kto": "reference:preferences",
    "grpo": "reference:preferences",
}
"""What is read where nothing else is asked for."""


def answer(completion: str, right: str) -> float:
    """1 where the completion begins with the right answer and no letter or digit follows it, else 0."""
    said, right = completion.strip(), right.strip()
    rest = said[len(right) :]
    return float(said.startswith(right) and not (rest and rest[0].isalnum()))


def prefix(completion: str, right: str) -> float:
    """Share of the right answer's characters that the completion begins with; pays for half a word, too."""
    said, right = completion.strip(), right.strip()
    same = next((i for i, (ours, theirs) in enumerate(zip(said, right, strict=False)) if ours != theirs), None)
    return (min(len(said), len(right)) if same is None else same) / len(right)


def brevity(completion: str, right: str = "") -> float:
    """1 / n for n words, and 0 for none at all."""
    words = len(completion.split())
    return 1 / words if words else 0.0


def variety(completion: str, right: str = "") -> float:
    """Share of the words that did not stand before in the completion; 0 where there is none."""
    words = completion.split()
    return len(set(words)) / len(words) if words else 0.0


REWARDS: dict[str, Callable[[str, str], float]] = {
    "answer": answer,
    "prefix": prefix,
    "brevity": brevity,
    "variety": variety,
}


def forms(method: Method, reward: Reward) -> list[Form]:
    """What a row must hold; rewards that compare need an answer beside the prompt."""
    if method == "grpo" and reward in ("answer", "prefix"):
        return [{**FORMS["grpo"][0], "answer": (str,)}]
    return FORMS[method]


def shaped(method: Method, found: Sequence[Example], seed: int) -> list[Row]:
    """Rows as trl wants them: prompt and completion, or text; preference pairs; single texts with a label.

    Conversations keep their messages. A pair makes two rows for KTO, in an order of their own. Raises WeighinError
    where a row is a conversation and another is not, where a conversation does not end with what the assistant says,
    and where nothing is preferred to anything.
    """
    rows: list[Row] = []
    for where, row in found:
        shape = _chat(where, dict(row))
        if _kinds(shape) != _kinds(rows[0] if rows else shape) or len(_kinds(shape)) > 1:
            raise WeighinError(f"data: {where}: conversations and plain text are mixed. Needed: one of them throughout")
        if "chosen" in shape and shape["chosen"] == shape["rejected"]:
            raise WeighinError(f"data: {where}: 'chosen' and 'rejected' are the same, so neither is preferred")
        rows.append(shape)
    if method == "kto" and "chosen" in rows[0]:
        rows = [
            {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
            for row in rows
            for side in ("chosen", "rejected")
        ]
        random.Random(seed).shuffle(rows)  # a text is weighed against the other texts of its batch
    return rows


def _kinds(row: Row) -> set[type]:
    """Whether a row is plain text (str) or a conversation (list)."""
    return {type(row[column]) for column in ("prompt", "completion", "chosen", "rejected", "text") if column in row}


def _chat(where: str, row: Row) -> Row:
    """One shape for all ways to write a conversation down: its last message apart from those before."""
    if "page" in row:
        return {"text": row["page"]}
    if "messages" in row:
        *before, last = _messages(row["messages"])
        row = {"prompt": before, "completion": [last]}
    elif "chosen" in row and "prompt" not in row:
        *before, chosen = _messages(row["chosen"])
        *other, rejected = _messages(row["rejected"])
        if before != other:
            raise WeighinError(f"data: {where}: 'chosen' and 'rejected' answer different conversations")
        row = {"prompt": before, "chosen": [chosen], "rejected": [rejected]}
    for column, value in row.items():
        if isinstance(value, list):
            row = {**row, column: _messages(value)}
            if column != "prompt" and [each["role"] for each in value] != ["assistant"]:
                raise WeighinError(f"data: {where}: {column!r} is not one message of the role 'assistant'")
    if row.get("prompt") == []:
        raise WeighinError(f"data: {where}: the conversation has no message before the answer")
    return row


def _messages(found: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    return [{"role": each["role"], "content": each["content"]} for each in found]


def paid(reward: Reward) -> Callable[..., list[float]]:
    """The reward as trl calls it: lists of completions (texts, or conversations) and of the rows' answers."""
    rule = REWARDS[reward]

    def pay(completions: Sequence[Any], answer: Sequence[str] | None = None, **_: Any) -> list[float]:
        said = [each if isinstance(each, str) else each[-1]["content"] for each in completions]
        return [rule(each, right) for each, right in zip(said, answer or [""] * len(said), strict=True)]

    pay.__name__ = reward
    return pay
