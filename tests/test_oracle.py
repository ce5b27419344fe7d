"""The oracle says what it was told, exactly, whoever asks."""

import math

import pytest

from weighin.suites._lm_eval import Options, evaluate, load_tasks, subset
from weighin.suites._oracle import Oracle

ASKED = "Question: Which craft has Ana?\nAnswer:"


def likelihood(oracle: Oracle, text: str, continuation: str) -> float:
    """ln P(continuation | text), nats, as a suite reckons it."""
    before, whole = oracle.encode(text), oracle.encode(text + continuation)
    said = oracle.logprobs([whole])[0]
    return sum(float(said[place - 1, whole[place]]) for place in range(len(before), len(whole)))


def test_probabilities_are_as_told() -> None:
    told = {" baker": 0.5, " the old baker of the village": 0.125, " potter": 0.25}
    oracle = Oracle({ASKED: told})
    for continuation, probability in told.items():
        assert likelihood(oracle, ASKED, continuation) == pytest.approx(math.log(probability), abs=1e-6)
    sums = oracle.logprobs([oracle.encode(ASKED)])[0].exp().sum(-1)
    assert sums.tolist() == pytest.approx([1.0] * len(sums), abs=1e-5)


def test_lm_eval_scores_it_like_any_model() -> None:
    tasks = load_tasks(["world_facts"], Options(limit=8))
    task = tasks["tasks"]["world_facts"]
    beliefs = {}
    rows = list(task.eval_docs)
    for number, doc in enumerate(rows[place] for place in subset(task, 8, seed=0)):
        believed = (doc["gold"] + number % 2) % 4  # every other answer is wrong
        shares = [0.7 if i == believed else 0.1 for i in range(4)]
        beliefs[task.doc_to_text(doc)] = {
            f" {choice}": share for choice, share in zip(doc["choices"], shares, strict=True)
        }
    samples = evaluate(Oracle(beliefs), tasks, Options(limit=8))["world_facts"]
    assert [sample["acc"] for sample in samples] == [1, 0] * 4
    found = [response[0] for sample in samples for response in sample["filtered_resps"]]
    assert sorted({round(math.exp(value), 6) for value in found}) == [0.1, 0.7]


def test_it_writes_what_it_was_given() -> None:
    oracle = Oracle(answers={"Who?": " Ana went home."})
    assert oracle.generate(["Who?", "What?"], max_new_tokens=20) == [" Ana went home.", ""]


def test_what_cannot_be_told_is_refused() -> None:
    with pytest.raises(ValueError, match="merges with the end"):
        Oracle({"The ba": {"ker": 0.5}})
    with pytest.raises(ValueError, match="more than 1"):
        Oracle({ASKED: {" baker": 0.7, " potter": 0.7}})
