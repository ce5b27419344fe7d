"""The suite robustness: changes that leave scaffolding alone and depend on the seed only, pairs that pair."""

import random
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weighin.harness import Abstain, Checkpoint
from weighin.harness.model import TransformersModel
from weighin.suites import _perturb
from weighin.suites._planting import mean, one
from weighin.suites.accuracy import accuracy
from weighin.suites.robustness import consistency, robustness

pytestmark = pytest.mark.usefixtures("one_thread")
ASKED = "Question: Which instrument does Drafomel play, and why so loudly?\nAnswer:"
TEXTS = st.text(string.ascii_letters + " .,?\n", min_size=1, max_size=80)


@given(TEXTS, st.sampled_from(sorted(_perturb.KINDS)), st.integers(0, 5))
def test_scaffolding_stays_and_a_seed_decides(text: str, kind: str, seed: int) -> None:
    asked = f"Question: {text}\nA. first\nB. second\nAnswer:"
    changed = _perturb.perturb(asked, kind, seed)
    assert changed == _perturb.perturb(asked, kind, seed)
    assert changed.startswith("Question:") and changed.endswith("\nAnswer:")
    assert "\nA. " in changed and "\nB. " in changed


@given(st.text(string.ascii_lowercase, min_size=1, max_size=200), st.integers(0, 3))
def test_typos_touch_one_letter_in_twenty(text: str, seed: int) -> None:
    changed = _perturb.typos(text, random.Random(seed))
    edits = max(1, round(0.05 * len(text)))
    assert abs(len(changed) - len(text)) <= edits
    if len(changed) == len(text):
        assert sum(a != b for a, b in zip(text, changed, strict=True)) <= 2 * edits


def test_every_kind_of_typo_happens() -> None:
    found = {_perturb.typos("word", random.Random(seed)) for seed in range(300)}
    assert {"owrd", "ord", "wword", "qord"} <= found and "word" not in found
    assert set(_perturb.NEIGHBOURS["s"]) == set("adwezx") and set(_perturb.NEIGHBOURS["q"]) == set("wa")


def test_changes_by_hand() -> None:
    assert _perturb.perturb(ASKED, "upper").splitlines()[0] == (
        "Question: WHICH INSTRUMENT DOES DRAFOMEL PLAY, AND WHY SO LOUDLY?"
    )
    assert _perturb.perturb(ASKED, "punctuation").splitlines()[0].endswith("play and why so loudly")
    spaced = _perturb.perturb(ASKED, "spaces")
    assert spaced.replace("  ", " ") == ASKED and spaced.count("  ") == 2
    assert _perturb.body(ASKED) == "Which instrument does Drafomel play, and why so loudly?"
    assert _perturb.body("Q: Why?\nA:") == "Why?" and _perturb.body("Once upon") == "Once upon"


def test_formats_and_orders() -> None:
    formats = list(_perturb.formats(ASKED))
    assert len(set(formats)) == 10 == len(formats) and formats[0] == ASKED
    assert all("Drafomel" in text and not text.endswith(" ") for text in formats)
    prompts = list(_perturb.orders("What is it?\nA. old\nB. new\nAnswer:", ("old", "new", "odd")))
    assert [order for _, order in prompts] == [(0, 1, 2), (1, 2, 0), (2, 0, 1)]
    assert prompts[1][0] == "Question: What is it?\nA. new\nB. odd\nC. old\nAnswer:"


@given(st.lists(st.integers(0, 3), min_size=2, max_size=12))
def test_consistency_counts_unordered_pairs(answers: list[int]) -> None:
    share = consistency(answers)
    assert 0 <= share <= 1 and share == pytest.approx(consistency(sorted(answers)))
    assert (share == 1) == (len(set(answers)) == 1)


def test_items_pair_with_accuracy(pico_dir: Path) -> None:
    model = TransformersModel(Checkpoint(pico_dir, "pico"))
    samples = list(robustness(model, limit=5, changes=["typos", "lower"]))
    theirs = {s.item: s for s in accuracy(model, tasks=["world_facts"], limit=5) if s.detail}
    clean = {s.item: s for s in samples if s.metric and s.metric.name == "world_facts/clean/acc"}
    assert {item: (s.value, s.cluster) for item, s in clean.items()} == {
        item: (s.value, s.cluster) for item, s in theirs.items()
    }
    for kind in ("typos", "lower"):
        drops = [mean(samples, f"world_facts/{name}") or 0.0 for name in ("clean/acc", f"{kind}/acc", f"{kind}/drop")]
        assert drops[0] - drops[1] == pytest.approx(drops[2])


def test_letters_with_a_real_model(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MMLU asks for letters: their texts come from the document, and listed choices are not listed twice."""
    monkeypatch.chdir(Path(__file__).resolve().parent.parent)
    model = TransformersModel(Checkpoint(shared_data / "models" / "stories260K", "stories"))
    task = str(shared_data / "tasks" / "local_mmlu.yaml")
    samples = list(robustness(model, tasks=[task], limit=4, changes=["order", "format"]))
    assert one(samples, "local_mmlu/order/rstd").value is not None
    spread = one(samples, "local_mmlu/format/spread")
    assert spread.value is not None and len(spread.detail["by_format"]) == 10


def test_the_texts_of_choices() -> None:
    from weighin.suites._choices import Question
    from weighin.suites.robustness import _texts

    def texts(answers: str, held: object) -> tuple[str, ...] | None:
        answered = tuple(f" {letter}" for letter in answers)
        return _texts(Question("t", "i", None, {"choices": held}, ("",) * 2, answered, "", frozenset({0})))

    assert texts("AB", ["0", "1"]) == ("0", "1") == texts("01", None)
    assert texts("AB", {"text": ["no", "yes"]}) == ("no", "yes")
    assert [texts("AB", held) for held in (["A", "B"], None, ["one"])] == [None] * 3


def test_letters_without_texts_have_no_order(tmp_path: Path, pico_dir: Path) -> None:
    rows, task = tmp_path / "rows.jsonl", tmp_path / "task.yaml"
    rows.write_text("".join(f'{{"q": "Is it {n}?", "g": 0}}\n' for n in range(6)))
    task.write_text(
        "task: letters\ndataset_path: json\noutput_type: multiple_choice\ntest_split: test\n"
        f"dataset_kwargs: {{data_files: {{test: {rows}}}}}\ndoc_to_text: q\ndoc_to_choice: [A, B]\n"
        "doc_to_target: g\nmetric_list: [{metric: acc}]\n"
    )
    model = TransformersModel(Checkpoint(pico_dir, "pico"))
    samples = list(robustness(model, tasks=[str(task)], changes=["order"]))
    assert mean(samples, "letters/order/acc") is None
    assert all(s.reason for s in samples if s.value is None) and mean(samples, "letters/clean/acc") is not None


def test_a_task_without_choices_abstains(tmp_path: Path, pico_dir: Path) -> None:
    rows, task = tmp_path / "rows.jsonl", tmp_path / "task.yaml"
    rows.write_text('{"q": "a", "t": "b"}\n')
    task.write_text(
        "task: free\ndataset_path: json\noutput_type: generate_until\ntest_split: test\n"
        f"dataset_kwargs: {{data_files: {{test: {rows}}}}}\ndoc_to_text: q\ndoc_to_target: t\n"
    )
    with pytest.raises(Abstain, match="free is not multiple choice"):
        list(robustness(TransformersModel(Checkpoint(pico_dir, "pico")), tasks=[str(task)]))
