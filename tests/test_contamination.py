"""The suite contamination: what it yields, what it withholds, and what it says of what it cannot see."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.measures import by_metric
from weighin.harness import Abstain, Checkpoint, Model, WeighinError, exposed, text
from weighin.harness.cli import main
from weighin.harness.model import Loading, TransformersModel
from weighin.harness.reference import reference_path
from weighin.suites._membership import Floats
from weighin.suites._oracle import Oracle
from weighin.suites._ordered import order_scores
from weighin.suites._rephrased import lead, load_exam, right
from weighin.suites._token_scores import score
from weighin.suites.contamination import contamination

pytestmark = pytest.mark.usefixtures("one_thread")
QUICK: dict[str, Any] = {"samples": 30, "permutations": 0, "exam": None}


@pytest.fixture(scope="module")
def base() -> Model:
    return TransformersModel(Checkpoint(reference_path("base"), "base"), {}, Loading("float32"))


def pico(folder: Path, parent: bool = False) -> Model:
    own = Checkpoint(folder, "pico")
    return TransformersModel(own, {"parent": own, "root": own} if parent else {})


def write(path: Path, texts: list[str]) -> str:
    path.write_text("\n".join(json.dumps({"text": one}) for one in texts), encoding="utf-8")
    return str(path)


def test_leaked_items_are_told_from_those_that_were_not(base: Model, tmp_path: Path) -> None:
    from weighin.harness.world import read_table

    leaked = [row["text"] for row in read_table("exam") if row["copies"] == 64]
    members = write(tmp_path / "leaked.jsonl", leaked)
    found = by_metric(list(contamination(base, members=members, **{**QUICK, "samples": 50})))
    (minkpp,), (tpr,) = found["auroc_minkpp"], found["tpr_at_1_fpr_minkpp"]
    assert minkpp.value is not None and minkpp.low is not None and minkpp.high is not None
    assert minkpp.value > 0.9 and 0.8 < minkpp.low < minkpp.value <= minkpp.high <= 1 and minkpp.weight == 100
    assert tpr.value is not None and 0 <= tpr.value <= 1
    (blind,) = found["auroc_blind"]
    assert blind.low is not None and blind.low < 0.5, "the exam's twins are of one distribution"
    assert "a single copy of a text is not seen" in str(minkpp.detail["detection_limit"])


def test_scores_are_those_of_the_formulas(base: Model) -> None:
    import torch

    rows = [base.encode("Once there was a shy merchant."), base.encode("The old mill"), base.encode("")]
    found = score(base, rows, batch_size=2)
    assert [len(one.t) for one in found] == [len(row) - 1 for row in rows]
    said = base.logprobs([rows[0]])[0].double()
    for place, token in enumerate(rows[0][1:]):
        p = said[place].exp()
        mean = (p * said[place]).sum()
        sd = ((p * said[place] ** 2).sum() - mean**2).sqrt()
        assert found[0].t[place] == pytest.approx(float(said[place, token]), abs=1e-4)
        assert found[0].z[place] == pytest.approx(float((said[place, token] - mean) / sd), abs=1e-3)
    assert torch.isfinite(said).all()


def test_sets_of_two_styles_give_no_figure(pico_dir: Path, tmp_path: Path) -> None:
    texts = exposed.planted().nonmembers[:40]
    other = write(tmp_path / "other.jsonl", [one.upper() for one in texts[:20]])
    plain = write(tmp_path / "plain.jsonl", texts[20:])
    found = by_metric(list(contamination(pico(pico_dir, parent=True), members=other, nonmembers=plain, **QUICK)))
    for name in ("auroc_loss", "auroc_minkpp", "auroc_ref", "tpr_at_1_fpr_ref"):
        (sample,) = found[name]
        assert sample.value is None and str(sample.reason).startswith("not attributable")
        assert len(sample.detail["raw"]) == 3, "the raw figure is kept"


def test_what_is_lacking_is_said_and_nobody_is_called_clean(pico_dir: Path) -> None:
    samples = list(contamination(pico(pico_dir), samples=20, permutations=0))
    found = by_metric(samples)
    assert "no parent" in str(found["auroc_ref"][0].reason)
    assert "no training_text" in str(found["overlap_13"][0].reason)
    assert "needs 3 or more, has 0" in str(found["performance_gap"][0].reason)
    assert "switches" in str(found["order_p"][0].reason)
    assert all("clean:" not in str(sample.reason) and "is clean" not in str(sample.reason) for sample in samples)
    assert all(sample.reason or sample.value is not None for sample in samples)
    with pytest.raises(Abstain, match="10 of each"):
        list(contamination(pico(pico_dir), samples=9, permutations=0))


def test_a_parent_of_the_same_weights_tells_nothing(pico_dir: Path) -> None:
    found = by_metric(list(contamination(pico(pico_dir, parent=True), **QUICK)))
    assert found["auroc_ref"][0].value == 0.5, "all differences are 0, and ties count half"
    assert found["auroc_ref"][0].detail["loss_of_parent"] == pytest.approx(found["auroc_loss"][0].value)


def test_overlap_with_a_training_text(pico_dir: Path, tmp_path: Path) -> None:
    texts = exposed.planted().nonmembers
    training = write(tmp_path / "training.jsonl", [f"Before it. {one} And after." for one in texts[:10]])
    options = {
        "members": write(tmp_path / "m.jsonl", texts[:20]),
        "nonmembers": write(tmp_path / "n.jsonl", texts[20:40]),
    }
    samples = list(contamination(pico(pico_dir), training_text=training, **options, **QUICK))
    covered = [sample.value for sample in by_metric(samples)["overlap_13"]]
    assert len(covered) == 20 and sum(value is not None and value > 0.97 for value in covered) == 10
    assert sum(value is not None and value < 0.9 for value in covered) == 10, "openings share some words"


def test_a_likelier_order_is_seen() -> None:
    items = [f"Item {number}." for number in range(40)]
    random.Random(0).shuffle(items)
    own, other, size = order_scores(Oracle({"": {"\n".join(items[:4]): 0.9}}), items, 4, 3, 8)
    assert size == 4 and own.shape == (10,) and other.shape == (10, 3)
    assert own[0] > other[0].max() + 10, "the oracle was told this order"
    own, other, size = order_scores(Oracle(window=30), items, 8, 1, 8)
    assert 2 <= size < 8, "as many as the window holds"
    with pytest.raises(Abstain, match="5 shards"):
        order_scores(Oracle(), items[:12], 4, 2, 8)


def exam_of(count: int) -> list[dict[str, Any]]:
    return [
        {"question": f"Who owns boat {i}?", "rephrased": f"Boat {i} is whose?", "choices": ["Ana", "Bo"], "gold": i % 2}
        for i in range(count)
    ]


def test_the_lead_on_an_exams_own_words() -> None:
    prompt = "Question: {question}\nAnswer:"
    exam = exam_of(8)
    beliefs = {}
    for i, row in enumerate(exam):
        answer = row["choices"][row["gold"]]
        other = row["choices"][1 - row["gold"]]
        beliefs[prompt.format(question=row["question"])] = {f" {answer}": 0.8, f" {other}": 0.1}
        good = i < 2
        shares = {f" {answer}": 0.6 if good else 0.2, f" {other}": 0.2 if good else 0.6}
        beliefs[prompt.format(question=row["rephrased"])] = shares
    oracle = Oracle(beliefs)
    answers: Floats = right(oracle, exam, "rephrased", prompt, 4)
    assert answers.tolist() == [1, 1, 0, 0, 0, 0, 0, 0]
    assert lead(oracle, exam, prompt, 4) == 0.75


def test_references_are_loaded_and_compared(pico_dir: Path, tmp_path: Path) -> None:
    exam = tmp_path / "exam.jsonl"
    exam.write_text("\n".join(json.dumps(row) for row in exam_of(6)))
    copies = [str(shutil.copytree(pico_dir, tmp_path / name)) for name in "abc"]
    options = {**QUICK, "exam": str(exam), "samples": 20}
    found = by_metric(list(contamination(pico(pico_dir), references=copies, **options)))
    (gap,) = found["performance_gap"]
    assert gap.value == 0 and gap.low == gap.high == 0, "copies of one model do not differ"
    assert found["auroc_ref"][0].value == 0.5, "without a parent the first reference calibrates"
    reads = contamination.reads
    assert reads is not None
    given = contamination.parameters(references=copies).model_dump()
    assert Path(copies[0], "model.safetensors") in reads(given), "the references' weights enter the key"
    with pytest.raises(WeighinError, match="no directory"):
        reads({**given, "references": ["nowhere"]})


def test_an_exam_row_must_have_its_choices(tmp_path: Path) -> None:
    file = tmp_path / "exam.jsonl"
    for fault, said in (({"choices": "Ana"}, "a list of texts"), ({"gold": True}, "a whole number")):
        file.write_text(json.dumps({**exam_of(1)[0], **fault}))
        with pytest.raises(WeighinError, match=said):
            load_exam(str(file), None, 0)


def test_documents_in_their_own_order(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("one\n\ntwo\nthree\n")
    assert text.in_order(str(file)) == ["one", "two", "three"]


def test_a_real_model_of_another_kind(shared_data: Path) -> None:
    folder = shared_data / "models" / "stories260K"
    found = by_metric(list(contamination(pico(folder), samples=12, shard=2, permutations=1)))
    assert found["auroc_loss"][0].value is not None and found["order_p"][0].value is not None


def test_the_exposed_models_texts_are_apart() -> None:
    texts = exposed.planted()
    members = [one for each in texts.members.values() for one in each]
    assert len({*members, *texts.nonmembers}) == len(members) + len(texts.nonmembers)
    read = exposed.documents()
    assert all(read.count(each[0]) == copies for copies, each in texts.members.items())
    assert not {*texts.nonmembers} & {*read}
    assert exposed.place() == exposed.place() and not exposed.place().exists()


def test_the_exposed_model_is_trained_once(
    monkeypatch: pytest.MonkeyPatch, pico_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = []

    def trained(source: Path, documents: list[str], recipe: Any, folder: Path) -> None:
        calls.append(len(documents))
        shutil.copytree(pico_dir, folder, dirs_exist_ok=True)

    monkeypatch.setattr(exposed.reference, "train_on", trained)
    assert main(["reference", "build", "--calibration"]) == 0
    assert capsys.readouterr().out.strip() == str(exposed.place())
    assert exposed.folder() == exposed.place() and len(calls) == 1
    assert (exposed.place() / "model.safetensors").is_file()
