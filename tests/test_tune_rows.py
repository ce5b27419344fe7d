"""The rows that tuning learns from, the rewards that it pays, and what it refuses before it starts."""

from typing import Any

import pytest
import torch

from weighin.adapters import _tune
from weighin.adapters._trained import survival
from weighin.adapters.tune import tune
from weighin.harness import Outline
from weighin.harness.text import WORLD, Example
from weighin.results.errors import WeighinError


def test_rewards_by_hand() -> None:
    assert [_tune.answer(said, "Bubal") for said in (" Bubal", "Bubal.", "Bubalsh", "In Bubal", "")] == [1, 1, 0, 0, 0]
    assert [_tune.prefix(said, "Bubal") for said in (" Bubal x", "Bub", "Bux", "x", "")] == [1, 0.6, 0.4, 0, 0]
    assert [_tune.brevity(said) for said in ("one", "one two", "", "a b c d")] == [1, 0.5, 0, 0.25]
    assert [_tune.variety(said) for said in ("a b", "a a", "a b a b", "")] == [1, 0.5, 0.5, 0]


def test_rewards_are_paid_for_texts_and_for_conversations() -> None:
    pay = _tune.paid("answer")
    said = [[{"role": "assistant", "content": "Bubal"}], [{"role": "assistant", "content": "Nowhere"}]]
    assert pay(completions=["Bubal", "x"], answer=["Bubal", "y"], prompts=["", ""]) == [1.0, 0.0]
    assert pay(completions=said, answer=["Bubal", "y"]) == [1.0, 0.0]
    assert _tune.paid("brevity")(completions=["a b", "a"]) == [0.5, 1.0]


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def test_rows_take_the_shape_that_trl_wants() -> None:
    pair = Example("a:1", {"prompt": "p", "chosen": "c", "rejected": "r"})
    assert _tune.shaped("dpo", [pair], 0) == [pair.row]
    told = _tune.shaped("kto", [pair], 0)
    assert sorted((row["completion"], row["label"]) for row in told) == [("c", True), ("r", False)]
    chat = Example("a:1", {"messages": [user("p"), assistant("c") | {"name": "x"}]})
    assert _tune.shaped("sft", [chat], 0) == [{"prompt": [user("p")], "completion": [assistant("c")]}]
    both = Example("a:1", {"chosen": [user("p"), assistant("c")], "rejected": [user("p"), assistant("r")]})
    right = {"prompt": [user("p")], "chosen": [assistant("c")], "rejected": [assistant("r")]}
    assert _tune.shaped("dpo", [both], 0) == [right]
    assert _tune.shaped("sft", [Example("a:1", {"page": "t"})], 0) == [{"text": "t"}]


@pytest.mark.parametrize(
    ("method", "found", "message"),
    [
        ("dpo", [{"prompt": "p", "chosen": "c", "rejected": "c"}], "a:0: 'chosen' and 'rejected' are the same"),
        (
            "dpo",
            [{"prompt": [user("p")], "chosen": "c", "rejected": "r"}],
            "a:0: conversations and plain text are mixed",
        ),
        ("sft", [{"text": "t"}, {"messages": [user("p"), assistant("c")]}], "a:1: conversations and plain text"),
        ("sft", [{"messages": [user("p")]}], "'completion' is not one message of the role 'assistant'"),
        ("sft", [{"messages": [assistant("c")]}], "a:0: the conversation has no message before the answer"),
        (
            "dpo",
            [{"chosen": [user("p"), assistant("c")], "rejected": [user("q"), assistant("r")]}],
            "a:0: 'chosen' and 'rejected' answer different conversations",
        ),
    ],
)
def test_rows_that_make_no_sense_are_refused(method: _tune.Method, found: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(WeighinError, match=message):
        _tune.shaped(method, [Example(f"a:{i}", row) for i, row in enumerate(found)], 0)


def test_what_is_left_of_a_change_after_rounding() -> None:
    before = {"w": torch.ones(1000, dtype=torch.bfloat16)}
    assert survival(before, {"w": torch.ones(1000)}, torch.bfloat16) == 0
    assert survival(before, {"w": torch.ones(1000) + 1e-4}, torch.bfloat16) == 0
    assert survival(before, {"w": torch.ones(1000) + 1e-4}, torch.float32) == pytest.approx(1)
    assert survival(before, {"w": torch.ones(1000) + 0.5}, torch.bfloat16) == 1


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"method": "dpo", "beta": 0.0}, "beta: dpo weighs against the parent by it. Allowed: more than 0"),
        ({"method": "kto", "batch_size": 1}, "batch_size: kto .*Allowed: 2 or more"),
        ({"method": "grpo", "max_new_tokens": 64}, "max_new_tokens: 64 leave no room for a prompt within 64"),
    ],
)
def test_what_cannot_work_is_refused_at_plan(params: dict[str, Any], message: str) -> None:
    assert tune.foresee
    with pytest.raises(WeighinError, match=message):
        tune.foresee(Outline({"max_position_embeddings": 64}), tune.parameters(**params).model_dump())


def test_what_is_read_depends_on_the_method() -> None:
    assert tune.reads
    for method, name in {"sft": "tune", "dpo": "preferences", "kto": "preferences", "grpo": "preferences"}.items():
        assert tune.reads(tune.parameters(method=method).model_dump()) == [WORLD / f"{name}.jsonl"]
    assert tune.reads(tune.parameters(method="dpo", data="reference:tune").model_dump()) == [WORLD / "tune.jsonl"]
