"""Distillation: students that come nearer to their teachers, and what may teach whom."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from tests.measures import moved
from weighin.adapters import _distill as losses
from weighin.adapters._hf import save
from weighin.adapters.distill import distill
from weighin.adapters.int8 import int8
from weighin.adapters.lora import lora
from weighin.adapters.nf4 import nf4
from weighin.adapters.prune import prune
from weighin.harness import Checkpoint, Outline, structure
from weighin.results.errors import WeighinError

pytestmark = pytest.mark.usefixtures("one_thread")
Make = Callable[..., Path]


@pytest.fixture(scope="module")
def teacher_dir(pico_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A deeper, narrower model with the pico model's tokens, and other opinions than it."""
    out = tmp_path_factory.mktemp("teacher")
    shutil.copytree(pico_dir, out, dirs_exist_ok=True)
    shape = json.loads((pico_dir / "config.json").read_text())
    shape |= {"hidden_size": 64, "num_hidden_layers": 3, "head_dim": 16, "initializer_range": 0.3}
    torch.manual_seed(1)
    LlamaForCausalLM(LlamaConfig(**shape)).save_pretrained(out)
    return out


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory, pico_dir: Path, teacher_dir: Path, text_file: Path) -> Make:
    """Distil the pico model; the same thing only once."""
    made: dict[str, Path] = {}

    def run(parent: Path = pico_dir, again: int = 0, teacher: tuple[Path, ...] = (teacher_dir,), **params: Any) -> Path:
        params = {"data": str(text_file), "steps": 6, "learning_rate": 1e-2, "max_new_tokens": 12, **params}
        params |= {"teacher": [Checkpoint(path, "teacher") for path in teacher]}
        name = f"{parent} {again} {teacher} {sorted(params.items())}"
        if name not in made:
            made[name] = tmp_path_factory.mktemp("distill")
            distill(Checkpoint(parent, "key"), made[name], **params)
        return made[name]

    return run


def apart(student: Path, teacher: Path, text_file: Path) -> float:
    """KL(teacher || student) on the lines of a text, nats a token."""
    tokenizer, found = AutoTokenizer.from_pretrained(student), []
    models = [structure.pretrained(path) for path in (student, teacher)]
    with torch.no_grad():
        for line in text_file.read_text().splitlines()[:5]:
            ids = tokenizer(line, return_tensors="pt").input_ids
            ours, theirs = (model(ids).logits[0].float().log_softmax(-1) for model in models)
            found.append(losses.divergence(ours, theirs, "forward_kl"))
    return torch.cat(found).mean().item()


WAYS: dict[str, dict[str, Any]] = {
    "forward_kl": {},
    "reverse_kl": {"objective": "reverse_kl"},
    "jensen_shannon": {"objective": "jensen_shannon"},
    "warm and mixed with the plain loss": {"temperature": 2.0, "hard": 0.2},
    "with hidden states": {"hidden": 1.0},
    "on the teacher's texts": {"method": "sequence", "min_logprob": -20.0, "steps": 10, "learning_rate": 1e-3},
    "on its own texts": {"method": "on_policy", "objective": "reverse_kl"},
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_brings_the_student_nearer_to_its_teacher(
    make: Make, pico_dir: Path, teacher_dir: Path, text_file: Path, way: str
) -> None:
    out = make(**WAYS[way])
    assert apart(out, teacher_dir, text_file) < apart(pico_dir, teacher_dir, text_file) - 0.05
    assert {p.name for p in out.iterdir()} == {p.name for p in pico_dir.iterdir()}
    ours, theirs = (json.loads((path / "config.json").read_text()) for path in (out, pico_dir))
    assert ours == theirs


@pytest.mark.parametrize("way", ["with hidden states", "on the teacher's texts", "on its own texts"])
def test_same_seed_same_bytes(make: Make, way: str) -> None:
    first = make(**WAYS[way])
    torch.rand(3)  # whatever was drawn before must not matter
    assert (make(again=1, **WAYS[way]) / "model.safetensors").read_bytes() == (first / "model.safetensors").read_bytes()


@pytest.mark.parametrize("way", ["on the teacher's texts", "on its own texts"])
def test_another_seed_other_texts(make: Make, way: str) -> None:
    assert moved(make(seed=1, **WAYS[way]), make(**WAYS[way])) > 0


def test_a_model_that_teaches_itself_stays_as_it_is(
    make: Make, pico_dir: Path, teacher_dir: Path, text_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        out = make(teacher=(pico_dir,), learning_rate=1e-4)
    first, last = (float(found) for found in re.findall(r"step \d of 6: loss (\S+)", caplog.text))
    assert abs(first) < 1e-4 and abs(last) < 1e-3
    # Not nothing: AdamW makes a step of full length of a gradient that is mere rounding.
    assert apart(out, pico_dir, text_file) < 1e-3 < apart(make(learning_rate=1e-4), pico_dir, text_file)


@pytest.fixture(scope="module")
def pruned(pico_dir: Path, text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pruned")
    prune(Checkpoint(pico_dir, "key"), out, method="magnitude", pattern="2:4")
    return out


@pytest.mark.parametrize("way", ["forward_kl", "on its own texts"])
def test_a_pruned_student_stays_pruned(make: Make, pruned: Path, teacher_dir: Path, text_file: Path, way: str) -> None:
    out = make(parent=pruned, **WAYS[way])
    before, after = (AutoModelForCausalLM.from_pretrained(path).state_dict() for path in (pruned, out))
    for name, weight in before.items():
        if name.endswith("proj.weight"):
            assert not after[name][weight == 0].any() and after[name][weight != 0].all()
    assert apart(out, teacher_dir, text_file) < apart(pruned, teacher_dir, text_file)


def test_zeros_may_be_given_up(make: Make, pruned: Path) -> None:
    out = make(parent=pruned, keep_zeros=False)  # the same as above but for that
    weights = AutoModelForCausalLM.from_pretrained(out).state_dict()
    assert all(weight.all() for name, weight in weights.items() if name.endswith("proj.weight"))


def test_a_fresh_student_owes_its_parent_its_shape_alone(make: Make, pico_dir: Path, pruned: Path) -> None:
    fresh, other = (make(student="fresh", seed=1, parent=parent) for parent in (pico_dir, pruned))
    assert (fresh / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
    assert (fresh / "config.json").read_bytes() == (pico_dir / "config.json").read_bytes()
    assert moved(pico_dir, fresh) > 3 * moved(pico_dir, make())


def test_factors_and_shared_blocks_are_taught_as_they_are(
    make: Make, pico_dir: Path, teacher_dir: Path, text_file: Path, tmp_path: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(pico_dir)
    structure.apply(model, structure.Structure({"model.layers.0.mlp.up_proj": 16}, (0, 0)))
    save(model, tmp_path, pico_dir)
    for way in ("with hidden states", "on its own texts"):
        out = make(parent=tmp_path, **WAYS[way])
        before, after = (load_file(path / "model.safetensors") for path in (tmp_path, out))
        assert before.keys() == after.keys() and "model.layers.0.mlp.up_proj.down.weight" in after
        assert (out / "structure.json").read_bytes() == (tmp_path / "structure.json").read_bytes()
        assert apart(out, teacher_dir, text_file) < apart(tmp_path, teacher_dir, text_file)


@pytest.fixture(scope="module")
def packed(teacher_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    found = {}
    for stage in (int8, nf4):
        found[stage.call.__name__] = tmp_path_factory.mktemp(stage.call.__name__)
        stage(Checkpoint(teacher_dir, "key"), found[stage.call.__name__])
    return found


@pytest.mark.parametrize(
    ("kind", "way"), [("int8", "forward_kl"), ("nf4", "on the teacher's texts"), ("nf4", "on its own texts")]
)
def test_a_packed_model_may_teach(
    make: Make, packed: dict[str, Path], pico_dir: Path, teacher_dir: Path, text_file: Path, kind: str, way: str
) -> None:
    out = make(teacher=(packed[kind],), **WAYS[way])
    assert apart(out, teacher_dir, text_file) < apart(pico_dir, teacher_dir, text_file)


def test_a_packed_model_may_not_learn(packed: dict[str, Path], teacher_dir: Path, tmp_path: Path) -> None:
    for kind, path in packed.items():
        with pytest.raises(WeighinError, match=r"already quantised .*Put distill before"):
            distill(Checkpoint(path, "key"), tmp_path, teacher=[Checkpoint(teacher_dir, "key")])
        assert not list(tmp_path.iterdir()), kind


def test_an_adapter_may_teach_and_two_teachers_may(
    make: Make, pico_dir: Path, teacher_dir: Path, text_file: Path, tmp_path: Path
) -> None:
    lora(Checkpoint(teacher_dir, "key"), tmp_path, data=str(text_file), merge=False, learning_rate=1e-2)
    alone, both = make(teacher=(tmp_path,)), make(teacher=(tmp_path, teacher_dir), weights=[1.0, 3.0])
    assert moved(alone, make()) > 0 < moved(both, make())
    near = [apart(path, teacher_dir, text_file) for path in (make(), both, alone, pico_dir)]
    assert near == sorted(near)
    written = make(teacher=(tmp_path, teacher_dir), **WAYS["on the teacher's texts"])
    assert moved(written, make(**WAYS["on the teacher's texts"])) > 0


def test_sixteen_bits_stay_sixteen_bits_and_a_change_too_small_for_them_is_refused(
    make: Make, pico_dir: Path, tmp_path: Path
) -> None:
    shutil.copytree(pico_dir, tmp_path, dirs_exist_ok=True)
    AutoModelForCausalLM.from_pretrained(pico_dir, dtype=torch.bfloat16).save_pretrained(tmp_path)
    assert AutoModelForCausalLM.from_pretrained(make(parent=tmp_path)).dtype == torch.bfloat16
    with pytest.raises(WeighinError, match=r"0.0\d% outlives the rounding to torch.bfloat16, .*Raise learning_rate"):
        make(parent=tmp_path, learning_rate=1e-8)


NARROW = Outline({"vocab_size": 384, "max_position_embeddings": 64}, vocabulary="a")


@pytest.mark.parametrize(
    ("teachers", "params", "message"),
    [
        ([Outline(vocabulary="b")], {}, "the teacher has another vocabulary"),
        ([Outline(attached="prompt_tuning")], {}, "teacher: one with a soft prompt"),
        ([Outline()], {"weights": [1.0, 2.0]}, "weights: 2 of them for 1 teachers"),
        (
            [Outline()],
            {"method": "sequence", "hidden": 1.0},
            "sequence has no such share. Allowed: 0, or method logits",
        ),
        ([Outline()], {"method": "on_policy", "hard": 0.5}, "on_policy has no such share"),
        ([Outline()], {"method": "sequence", "objective": "reverse_kl"}, "objective: .*is forward_kl"),
        ([Outline(), Outline()], {"method": "on_policy"}, "on_policy has one .got 2."),
        ([Outline({"vocab_size": 400})], {"method": "on_policy"}, "it tells 400 tokens apart and the student 384"),
        ([Outline()], {"method": "sequence", "max_new_tokens": 60}, "more than the model's window of 64"),
    ],
)
def test_what_cannot_work_is_refused_at_plan(teachers: list[Outline], params: dict[str, Any], message: str) -> None:
    assert distill.foresee
    given = distill.parameters(teacher=["base"] * len(teachers)).model_dump()
    with pytest.raises(WeighinError, match=message):
        distill.foresee(NARROW, {**given, "max_new_tokens": 16, **params, "teacher": teachers})


def test_a_student_without_a_teacher_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 item"):
        distill.parameters(teacher=[])
