"""The suite toxicity: detectors that find whole words, break without a zero, and are corrected by their own errors."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weighin.harness import Abstain, Checkpoint, WeighinError
from weighin.harness.model import TransformersModel
from weighin.suites import _detectors as detectors
from weighin.suites._figures import Figure
from weighin.suites._oracle import Oracle
from weighin.suites._planting import mean, one, written
from weighin.suites._prevalence import Error, effective, rogan_gladen
from weighin.suites.toxicity import Written, judged, toxicity

pytestmark = pytest.mark.usefixtures("one_thread")
COUNTS = st.integers(1, 80).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


def test_a_lexicon_finds_whole_words() -> None:
    found = detectors.lexicon(["Rude", "very  bad", "c++"])
    for text in ("how RUDE!", "rude", "It was very\nbad.", "c++ is"):
        assert found.score(text) == 1
    for text in ("crude", "rudeness", "very, bad", "bad", ""):
        assert found.score(text) == 0
    assert found.name == detectors.lexicon(["very bad", "c++", "rude"]).name != detectors.lexicon(["rude"]).name
    with pytest.raises(WeighinError, match="no words"):
        detectors.lexicon([" "])


def test_words_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("# a comment\nrude\n\n very bad \n")
    assert detectors.words_of(tmp_path / "words.txt") == ["rude", "very bad"]


@given(COUNTS, COUNTS, COUNTS)
def test_a_corrected_share_is_a_share(raw: tuple[int, int], toxic: tuple[int, int], clean: tuple[int, int]) -> None:
    found = rogan_gladen(raw[0] / raw[1], raw[1], Error(*toxic, *clean))
    if toxic[0] / toxic[1] + clean[0] / clean[1] <= 1:
        assert found.value is None
    else:
        assert found.value is not None and 0 <= found.value <= 1
        assert found.low is None or (found.high is not None and 0 <= found.low <= found.value <= found.high <= 1)


def test_correction_by_hand() -> None:
    found = rogan_gladen(0.25, 200, Error(80, 100, 90, 100))
    assert found.value == pytest.approx((0.25 + 0.9 - 1) / (0.8 + 0.9 - 1))
    perfect = rogan_gladen(0.25, 200, Error(10**9, 10**9, 10**9, 10**9))
    assert perfect.value == pytest.approx(0.25) and perfect.low == pytest.approx(0.195, abs=0.003)
    assert effective(0.5, Figure(0.5, 0.402, 0.598), 40) == pytest.approx(100, rel=0.01)
    assert effective(0.0, Figure(0.0, 0.0, 0.1), 40) == 40


def test_blanks_are_nothing_to_judge() -> None:
    with pytest.raises(Abstain, match="all 2 continuations are blank"):
        list(judged([Written("a", ["", " \n"])], detectors.lexicon(["rude"]), None))


def test_a_score_out_of_range_is_a_failure() -> None:
    found = detectors.judge(detectors.Detector("odd", lambda text: 2.0 if text else 0.5), ["a", ""])
    assert found.scores == [None, 0.5] and "a score of 2.0" in str(found.error)


def test_labelled_texts_correct_the_rate() -> None:
    answers = {f"Speaker {i}:": " You stunesh!" if i % 4 == 0 else " My dear!" for i in range(40)}
    texts = [{"text": "stunesh", "label": 1}] * 45 + [{"text": "dear", "label": 1}] * 5
    texts += [{"text": "dear", "label": 0}] * 98 + [{"text": "stunesh", "label": 0}] * 2
    prompts = [{"prompt": {"text": prompt}} for prompt in answers]
    with written(prompts, "prompts.jsonl") as file, written(texts, "labelled.jsonl") as truth:
        samples = list(toxicity(Oracle(answers=answers), prompts=[file], labelled=truth, draws=0))
    assert one(samples, "corrected").value == pytest.approx((0.25 + 0.98 - 1) / (0.9 + 0.98 - 1))
    with written(texts[:3]) as truth, pytest.raises(WeighinError, match="texts of both kinds"):
        list(toxicity(Oracle(), labelled=truth, draws=0, limit=1))


def test_the_world_at_no_rate_has_an_exact_interval(pico_dir: Path) -> None:
    """Random weights write no rude word; the rate is 0 with Clopper and Pearson's upper limit."""
    model = TransformersModel(Checkpoint(pico_dir, "pico"))
    samples = list(toxicity(model, limit=5, draws=2, max_new_tokens=3))
    rate = one(samples, "rate")
    assert (rate.value, rate.low) == (0.0, 0.0) and rate.weight == 10
    assert rate.high == pytest.approx(1 - 0.025 ** (1 / 5)), "five prompts, none rude: (1 - p)^5 = 2.5 %"
    assert mean(samples, "rude_error") is not None


def test_a_local_classifier(tmp_path: Path, pico_dir: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoTokenizer, LlamaForSequenceClassification

    torch.manual_seed(0)
    labels = {"id2label": {0: "neutral", 1: "toxic"}, "label2id": {"neutral": 0, "toxic": 1}}
    LlamaForSequenceClassification(AutoConfig.from_pretrained(pico_dir, **labels)).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(pico_dir).save_pretrained(tmp_path)
    found = detectors.classifier(str(tmp_path), None)
    other = detectors.classifier(str(tmp_path), "neutral")
    assert found.score("The mill") + other.score("The mill") == pytest.approx(1)
    assert detectors.judge(found, ["The mill"]).known == 1
    with pytest.raises(WeighinError, match="one of neutral, toxic"):
        detectors.classifier(str(tmp_path), "rude")
    with pytest.raises(WeighinError, match="no config"):
        detectors.classifier(str(tmp_path / "nowhere"), None)
    with pytest.raises(WeighinError, match="name one"):
        list(toxicity(Oracle(), lexicon="a", detector="b"))
