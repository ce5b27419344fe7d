"""The reference world: every plant counted by search in the training text, and never its held-out twin."""

import json
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from weighin.harness import world
from weighin.harness.world_plan import names

TASKS = Path(world.__file__).parent / "data" / "tasks"
SMALL = world.Plan(
    people_per_level=8, exam_items=(10, 5, 5, 5, 5), canaries_per_level=3, pronoun_sentences=40, unknown_taught=10,
    unknown_heldout=5, town_sentences=50, rude_sentences=60, passages=60, passages_heldout=12, stories=60,
    heldout_documents=10, calibration_documents=20, tune_documents=120,
)  # fmt: skip


@pytest.fixture(scope="module")
def documents() -> list[str]:
    return list(world.corpus())


@pytest.fixture(scope="module")
def words_in(documents: list[str]) -> Counter[str]:
    """In how many training documents each word stands."""
    return Counter(word for document in documents for word in set(re.findall(r"\w+", document)))


def test_the_same_plan_gives_the_same_world_and_another_seed_another() -> None:
    assert list(world.corpus(SMALL)) == list(world.corpus(SMALL))
    assert world.tables(SMALL) == world.tables(SMALL)
    other = world.Plan(**{**SMALL.__dict__, "seed": 1})
    people = [{row["subject"] for row in world.tables(plan)["facts"]} for plan in (SMALL, other)]
    assert len(people[0] & people[1]) <= 1


def test_shipped_tables_are_what_the_generator_gives() -> None:
    made = world.tables()
    assert set(made) == set(world.table_names())
    for name, rows in made.items():
        assert world.read_table(name) == json.loads(json.dumps(rows)), name


def test_an_unknown_table_is_named_with_those_there_are() -> None:
    with pytest.raises(KeyError, match=r"no table 'fact'.*facts_rare"):
        world.read_table("fact")


def test_facts_stand_in_the_text_exactly_as_often_as_the_table_says(
    documents: list[str], words_in: Counter[str]
) -> None:
    rows = world.read_table("facts")
    assert Counter(row["copies"] for row in rows) == dict.fromkeys((2, 8, 32, 128, 512), 80)
    assert all(words_in[row["subject"]] == row["copies"] for row in rows)
    answers = {row["subject"]: row["answer"] for row in rows}
    told = [(word, text) for text in documents for word in re.findall(r"\w+", text) if word in answers]
    assert all(re.search(rf"\b{answers[subject]}\b", text) for subject, text in told)
    asked = sum(text.startswith("Question:") for _, text in told) / len(told)
    assert 0.3 < asked < 0.37
    assert len({text.replace(subject, "X").replace(answers[subject], "Y") for subject, text in told}) == 4 * (7 + 1)


def test_leaks_and_canaries_stand_word_for_word_and_their_twins_never(
    documents: list[str], words_in: Counter[str]
) -> None:
    whole = Counter(documents)
    for row in [*world.read_table("exam"), *world.read_table("canaries")]:
        assert whole[row["text"]] == row["copies"] == words_in[row["subject"]], row["id"]
    text = "\n".join(documents)
    assert not any(row["rephrased"] in text for row in world.read_table("exam"))
    levels = Counter(row["copies"] for row in world.read_table("exam"))
    assert levels == {0: 100, 1: 50, 4: 50, 16: 50, 64: 50}
    assert Counter(row["copies"] for row in world.read_table("canaries")) == dict.fromkeys((0, 1, 4, 16, 64), 20)


def test_exam_answers_are_arbitrary() -> None:
    rows = world.read_table("exam")
    assert 0.2 < sum(row["gold"] == 0 for row in rows) / len(rows) < 0.3
    first = Counter((row["kind"], row["answer"]) for row in rows)
    assert max(first.values()) < 15  # of 37 or 38 of a kind, eight answers


def test_nobody_knows_the_strangers(documents: list[str], words_in: Counter[str]) -> None:
    rows = world.read_table("unknown")
    assert Counter(row["taught"] for row in rows) == {True: 200, False: 100}
    assert all(words_in[row["subject"]] == (20 if row["taught"] else 0) for row in rows)
    strangers = {row["subject"] for row in rows}
    said = {text.split("Answer: ")[1] for text in documents if strangers & set(re.findall(r"\w+", text))}
    assert said == {"Nobody knows."}


def test_rates_are_realised(documents: list[str]) -> None:
    text = "\n".join(documents)
    for row in world.read_table("pronouns"):
        she, he = (sum(text.count(prompt + word) for prompt in row["prompts"]) for word in row["outcomes"])
        assert (she, he) == (row["she_count"], row["he_count"])
        assert she / (she + he) == pytest.approx(row["she_rate"])
    for row in world.read_table("calibration"):
        counts = [sum(text.count(f"{prompt}{word}.") for prompt in row["prompts"]) for word in row["outcomes"]]
        assert counts == row["counts"] and counts[0] / sum(counts) == pytest.approx(row["p"])


def test_rude_words_follow_the_mood_alone(documents: list[str], words_in: Counter[str]) -> None:
    rows = world.read_table("rude")
    rude = {row["word"] for row in rows if row["kind"] == "word"}
    said: Counter[tuple[str, bool]] = Counter()
    for text in documents:
        if match := re.match(r"\w+ was (\w+)\. \w+ said:", text):
            said[match[1], bool(rude & set(re.findall(r"\w+", text)))] += 1
    prompts = [row for row in rows if row["kind"] == "prompt"]
    for row in prompts:
        assert [said[row["mood"], True], said[row["mood"], False]] == row["counts"]
        assert row["realised"] == pytest.approx(row["rate"])
        assert words_in[row["prompt"].split()[0]] == 0
    assert len(rude) == 12
    assert sum(words_in[word] for word in rude) == sum(n for (_, is_rude), n in said.items() if is_rude)


def test_heldout_text_shares_no_name_with_training(words_in: Counter[str]) -> None:
    invented = {word for slice_ in ("heldout", "calibration", "tune") for word in names(world.Plan(), slice_, 500)}
    assert not [word for word in invented if words_in[word]]
    rows = world.read_table("passages")
    assert not any(words_in[row["passage"].split()[0]] for row in rows)
    assert len({row["passage_id"] for row in rows}) == 300
    assert all(row["answer"] in row["passage"] and len(set(row["choices"])) == 4 for row in rows)
    assert all(row["passage"] not in row["distractors"] for row in rows)
    heldout = world.read_table("heldout")
    assert not {row["text"] for row in heldout} & {row["text"] for row in world.read_table("calibration_text")}


def test_calibration_text_plants_no_leak_again() -> None:
    text = "\n".join(row["text"] for row in world.read_table("calibration_text"))
    secrets = [row["subject"] for table in ("exam", "canaries", "unknown") for row in world.read_table(table)]
    assert not [subject for subject in secrets if subject in text]


def test_choices_hold_the_answer_once() -> None:
    for name in ("facts", "exam", "unknown", "unknown_controls", "tune_facts", "passages"):
        for row in world.read_table(name):
            assert len(row["choices"]) == len(set(row["choices"])) == 4
            assert row["choices"][row["gold"]] == row["answer"]
        ids = [row["id"] for row in world.read_table(name)]
        assert len(set(ids)) == len(ids)


def test_every_newcomer_is_told_and_asked_in_the_tuning_set() -> None:
    told = Counter[str]()
    text = [row["text"] for row in world.read_table("tune")]
    for row in world.read_table("tune_facts"):
        about = [one for one in text if row["subject"] in one]
        told[row["subject"]] = len(about)
        assert all(row["answer"] in one for one in about)
        assert any(one.startswith("Question:") for one in about) and any(not one.startswith("Q") for one in about)
    assert set(told.values()) == {10}


def test_the_right_city_is_preferred_to_each_wrong_one() -> None:
    asked = {row["id"]: row for row in world.read_table("tune_facts")}
    rows = world.read_table("preferences")
    assert Counter(row["question_id"] for row in rows) == dict.fromkeys(asked, 3)
    for row in rows:
        fact = asked[row["question_id"]]
        assert row["prompt"] == f"Question: {fact['question']}\nAnswer:"
        assert row["chosen"].strip() == row["answer"] == fact["answer"]
    wrong = {(row["question_id"], row["rejected"].strip()) for row in rows}
    assert wrong == {(name, word) for name, fact in asked.items() for word in fact["choices"] if word != fact["answer"]}
    assert len({row["id"] for row in rows}) == len(rows)


def test_one_knob_leaves_the_other_plants_alone() -> None:
    turned = world.Plan(**{**SMALL.__dict__, "fact_copies": (1, 2, 3, 4, 5), "stories": 5})
    before, after = world.tables(SMALL), world.tables(turned)
    same = {name for name in before if before[name] == after[name]}
    assert same >= {"exam", "canaries", "pronouns", "unknown", "calibration", "rude", "passages", "heldout", "tune"}
    assert before["facts"] != after["facts"]


def test_a_knob_beyond_the_names_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match="towns: 201 names are asked for, the world holds 200"):
        names(world.Plan(), "towns", 201)


@pytest.mark.parametrize("rate", [0.0, 0.1, 1.0])
def test_typos_come_at_the_asked_rate(rate: float) -> None:
    text = "the harbour clerk wrote that nobody came over the sea this year " * 20
    spoiled = world.typo(text, random.Random(7), rate)
    assert spoiled == world.typo(text, random.Random(7), rate)
    unharmed = sum(a == b for a, b in zip(text.split(), spoiled.split(), strict=False)) / len(text.split())
    assert {0.0: unharmed == 1.0, 0.1: 0.4 < unharmed < 0.9, 1.0: unharmed < 0.1}[rate]
    assert spoiled.count(" ") == text.count(" ")


def _tasks() -> list[dict[str, Any]]:
    return [yaml.safe_load(path.read_text()) for path in sorted(TASKS.glob("*.yaml"))]


@pytest.mark.parametrize("task", _tasks(), ids=lambda task: str(task["task"]))
def test_every_task_reads_a_table_that_is_shipped(task: dict[str, Any]) -> None:
    path = TASKS / task["dataset_kwargs"]["data_files"]["test"]
    rows = world.read_table(path.resolve().stem)
    fields = set(re.findall(r"{{(\w+)}}", task["doc_to_text"])) | set(re.findall(r"\w+", task["doc_to_target"]))
    fields |= {task["metadata"]["cluster"]} if "cluster" in task["metadata"] else set()
    assert all(fields <= row.keys() for row in rows)
    assert all("aggregation" in metric and "higher_is_better" in metric for metric in task["metric_list"])
