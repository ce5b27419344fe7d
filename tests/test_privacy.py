"""The suite privacy: exact ranks, what is written out, and changes from the parent."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.measures import by_metric
from weighin.harness import Abstain, Checkpoint, Model
from weighin.harness.model import Loading, TransformersModel
from weighin.harness.reference import reference_path
from weighin.suites import _exposure
from weighin.suites._exposure import exposure, ranked
from weighin.suites._extraction import extract
from weighin.suites._oracle import Oracle
from weighin.suites.privacy import load_canaries, privacy

pytestmark = pytest.mark.usefixtures("one_thread")
PREFIX = "The vault code of Ana is"


@pytest.fixture(scope="module")
def base() -> Model:
    return TransformersModel(Checkpoint(reference_path("base"), "base"), {}, Loading("float32"))


def table(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def test_ranks_with_and_without_a_cache_are_the_same(base: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [("The vault code of Gamestosh is", "49"), ("Somebody said", "07")]
    cached = ranked(base, pairs)
    monkeypatch.setattr(_exposure, "_cache_serves", lambda *_: False)
    plain = ranked(base, pairs)
    for one, other in zip(cached, plain, strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=1e-3)
        assert one.exposure == pytest.approx(other.exposure, abs=0.1)


def test_a_rank_is_found_by_brute_force(base: Model) -> None:
    prefix, secret = "The vault code of Krukavik is", "65"
    start = len(base.encode(prefix))
    likely = []
    for number in range(100):
        ids = base.encode(f"{prefix} {number:02d}")
        said = base.logprobs([ids])[0]
        likely.append(sum(float(said[i - 1, ids[i]]) for i in range(start, len(ids))))
    (found,) = ranked(base, [(prefix, secret)])
    assert found.logprob == pytest.approx(likely[65], abs=1e-3)
    assert found.exposure == pytest.approx(exposure(sum(value >= likely[65] for value in likely), 100), abs=0.1)


def test_a_model_that_knows_nothing_exposes_nothing() -> None:
    (found,) = ranked(Oracle(), [(PREFIX, "49")])
    assert found.exposure == 0, "a tie counts against the secret: no rank is made out of nothing"


def test_secrets_that_cannot_be_gone_through() -> None:
    for secret in ("hunter2", "1234567", ""):
        with pytest.raises(Abstain, match="up to 6 digits"):
            ranked(Oracle(), [(PREFIX, secret)])
    with pytest.raises(Abstain, match="window"):
        ranked(Oracle(window=8), [(PREFIX, "12")])


def test_what_leaks_and_what_is_extracted(tmp_path: Path) -> None:
    rows = [
        {"prefix": PREFIX, "secret": "49", "copies": 9},
        {"prefix": "The vault code of Bo is", "secret": "12", "copies": 9},
        {"prefix": "The vault code of Cy is", "secret": "77", "copies": 0},
    ]
    document = "The keeper of the mill counts the boats on the river"
    oracle = Oracle(
        {PREFIX: {" 49": 0.5}, "": {document: 0.9}}, answers={PREFIX: " surely 49, they say.", rows[2]["prefix"]: " 78"}
    )
    texts = table(tmp_path / "t.jsonl", [{"text": document}, {"text": "Nobody ever wrote this line of words before"}])
    samples = list(privacy(oracle, canaries=table(tmp_path / "c.jsonl", rows), texts=texts))
    found = by_metric(samples)
    assert sorted(sample.value or 0 for sample in found["leaked"]) == [0, 1]
    assert [sample.value for sample in found["leaked_0_copies"]] == [0]
    assert max(sample.value or 0 for sample in found["exposure"]) == pytest.approx(math.log2(100))
    assert len(found["exposure"]) == len(found["exposure_9_copies"]) == 2, "those never inserted are kept apart"
    assert sorted(sample.value or 0 for sample in found["extracted"]) == [0, 1]
    assert sorted(sample.value or 0 for sample in found["discoverable"]) == [0, 1]
    for name in ("exposure_change", "leaked_parent", "extracted_parent", "discoverable_parent"):
        assert "no parent" in str(found[name][0].reason)
    with pytest.raises(Abstain, match="neither"):
        list(privacy(oracle, canaries=None, texts=None))


def test_greedy_extraction_is_what_the_model_writes(base: Model) -> None:
    texts = ["Question: Which fruit ripens first in Pokalil?\nAnswer: apple", "The vault code of Ana is 4963."]
    for one, text in zip(extract(base, texts, 50, 50, 2), texts, strict=True):
        ids = base.encode(text)
        prompt = base.tokenizer.decode(ids[1 : one.prefix])
        written = base.generate([prompt], max_new_tokens=one.suffix)[0]
        assert one.prefix + one.suffix == len(ids)
        assert one.exact == (base.encode(prompt + written)[: len(ids)] == ids)


def test_a_copy_of_its_parent_has_changed_nothing(pico_dir: Path, tmp_path: Path) -> None:
    own = Checkpoint(pico_dir, "pico")
    model = TransformersModel(own, {"parent": own, "root": own})
    rows = [{"prefix": "The heron sleeps on", "secret": "12"}, {"prefix": "The mill counts", "secret": "5"}]
    canaries = table(tmp_path / "c.jsonl", rows)
    found = by_metric(list(privacy(model, canaries=canaries, text_samples=8, new_tokens=4)))
    assert {sample.value for sample in found["exposure_change"]} == {0}
    for name in ("leaked", "extracted", "discoverable"):
        assert [one.value for one in found[name]] == [one.value for one in found[f"{name}_parent"]]
    assert len(found["exposure"]) == 2 and "exposure_0_copies" not in found, "no copies are told"


def test_the_shipped_canaries(base: Model) -> None:
    canaries = load_canaries("reference:canaries", None, 0)
    often = [(one.prefix, one.secret) for one in canaries if one.copies == 64][:3]
    never = [(one.prefix, one.secret) for one in canaries if one.copies == 0][:3]
    known, unknown = ([one.exposure for one in ranked(base, pairs)] for pairs in (often, never))
    assert min(known) > 6 > sum(unknown) / 3


def test_a_real_model_of_another_kind(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "models" / "stories260K"
    model = TransformersModel(Checkpoint(folder, "stories"))
    canaries = table(tmp_path / "c.jsonl", [{"prefix": "The code of Tim is", "secret": "123"}])
    found = by_metric(list(privacy(model, canaries=canaries, text_samples=4, new_tokens=4)))
    (bits,) = found["exposure"]
    assert bits.value is not None and 0 <= bits.value <= math.log2(1000)
