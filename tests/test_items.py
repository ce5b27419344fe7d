"""Items for a reader's eyes: which differ, what was asked, what either answered; a few, and only those looked for."""

from pathlib import Path

from tests.stores import ACC, fill, flipped
from weighin.results.items import Answers, differing, outputs
from weighin.results.records import Metric, Sample

HIT = Metric("hit", "1")


def chosen(values: list[int]) -> list[Sample]:
    """Questions of two choices, the right one first; a wrong answer likes the second better."""
    return [
        Sample(
            f"item{i}", float(v), ACC,
            detail={"prompt": f"Question {i}?", "choices": [" yes", " no"], "target": "0",
                    "responses": [[-1.0, True], [-2.0 if v else -0.5, False]]},
        )
        for i, v in enumerate(values)
    ]  # fmt: skip


def test_every_flip_is_found_with_both_answers(tmp_path: Path) -> None:
    before, after = flipped(30, 4, 2)
    store = fill(tmp_path / "w.duckdb", {"a": {"accuracy": chosen(before)}, "b": {"accuracy": chosen(after)}})
    ids = ("r1-a-accuracy", "r1-b-accuracy")
    found = differing(store, "acc", ids)
    assert {each.item for each in found} == {f"item{i}" for i in range(6)}
    lost = next(each for each in found if each.item == "item0")
    assert (lost.a, lost.b, lost.prompt, lost.choices, lost.target) == (1, 0, "Question 0?", (" yes", " no"), "yes")
    assert lost.gave == (Answers("yes", (-1.0, -2.0)), Answers("no", (-1.0, -0.5)))
    assert [each.item for each in differing(store, "acc", ids, "QUESTION 3?")] == ["item3"]
    assert differing(store, "acc", ids, "' or 1=1 --") == [] and len(differing(store, "acc", ids, most=2)) == 2
    assert differing(store, "acc", (ids[0], ids[0])) == []


def test_free_text_is_shown_as_it_was_given(tmp_path: Path) -> None:
    told = [
        Sample("q1", 1.0, HIT, detail={"prompt": "Who?", "responses": ["Me"], "target": "me"}),
        Sample("q2", 0.0, HIT, detail={"reply": "<b>no</b>"}),
        Sample("q3", 0.0, HIT, detail={"seconds": 3}),
        Sample("q4", 0.0, HIT),
    ]
    store = fill(tmp_path / "w.duckdb", {"a": {"rag": told}})
    found = outputs(store, "r1-a-rag")
    assert [(each.prompt, each.output, each.target) for each in found] == [
        ("Who?", "Me", "me"),
        ("q2", "<b>no</b>", ""),
    ]
    assert [each.item for each in outputs(store, "r1-a-rag", "WHO")] == ["q1"]
