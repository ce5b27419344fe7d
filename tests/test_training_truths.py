"""What training must do to the reference models, whose world says what is true."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.measures import likelihood, loss, margin, perplexity, size
from weighin.adapters import _tune
from weighin.adapters._sample import Writing, write
from weighin.adapters.continue_ import continue_
from weighin.adapters.distill import distill
from weighin.adapters.lora import lora
from weighin.adapters.pretrain import pretrain
from weighin.adapters.prune import prune
from weighin.adapters.rtn import rtn
from weighin.adapters.tune import tune
from weighin.harness import Checkpoint, world
from weighin.harness.reference import reference_path
from weighin.harness.text import documents

pytestmark = pytest.mark.usefixtures("one_thread")
Make = Callable[..., Path]


def cut_base(out: Path) -> Path:
    """The reference model without its two middle layers."""
    base = reference_path("base")
    shutil.copytree(base, out, dirs_exist_ok=True)
    model = AutoModelForCausalLM.from_pretrained(base)
    model.model.layers = torch.nn.ModuleList(model.model.layers[i] for i in (0, 3))
    model.model.layers[1].self_attn.layer_idx = 1
    model.config.num_hidden_layers = 2
    model.save_pretrained(out)
    return out


@pytest.mark.slow
def test_a_taught_student_beats_one_that_only_reads(tmp_path: Path) -> None:
    """Half the layers of `base`, the same texts, steps and seed: with the whole `base` as a teacher, and without."""
    student, found = cut_base(tmp_path / "cut"), {}
    for name, params in {"reads": {"hard": 1.0}, "taught": {}, "layers too": {"hidden": 1.0}}.items():
        out = tmp_path / name
        out.mkdir()
        teacher = [Checkpoint(reference_path("base"), "base")]
        distill(Checkpoint(student, "cut"), out, teacher=teacher, steps=100, max_length=128, **params)
        found[name] = perplexity(out)
    assert perplexity(reference_path("base")) < found["taught"] < found["reads"] < perplexity(student)
    assert found["layers too"] < found["reads"]


def paid(path: Path, reward: str) -> float:
    """Mean reward of three texts after each of the newcomers' questions, drawn with one seed."""
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32),
        AutoTokenizer.from_pretrained(path),
    )
    rows = world.read_table("preferences")  # each question stands in three rows
    torch.manual_seed(7)
    how = Writing(length=8, temperature=1.0, batch=60, end=[tokenizer.eos_token_id], least=-99)
    written = write(model, [tokenizer(row["prompt"]).input_ids for row in rows], how, "test")
    said = [tokenizer.decode(each.tokens, skip_special_tokens=True) for each in written]
    return sum(_tune.REWARDS[reward](each, row["answer"]) for each, row in zip(said, rows, strict=True)) / len(rows)


@pytest.fixture
def tuned(tmp_path: Path) -> Make:
    def run(**params: Any) -> Path:
        out = tmp_path / "out"
        out.mkdir()
        tune(Checkpoint(reference_path("base"), "base"), out, **params)
        return out

    return run


@pytest.mark.slow
def test_the_newcomers_become_known_by_sft(tuned: Make) -> None:
    base, rows, out = reference_path("base"), world.read_table("preferences"), tuned(epochs=3, learning_rate=1e-3)
    assert likelihood(out, rows, "chosen") > likelihood(base, rows, "chosen") + 5
    assert paid(base, "answer") < 0.15 < 0.8 < paid(out, "answer")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_the_newcomers_cities_are_preferred(tuned: Make, method: str) -> None:
    base, rows, out = reference_path("base"), world.read_table("preferences"), tuned(method=method, epochs=2)
    assert abs(margin(base, rows)) < 1
    assert margin(out, rows) > margin(base, rows) + 2


@pytest.mark.slow
@pytest.mark.parametrize(("reward", "gain"), [("brevity", 0.1), ("answer", 0.08)])
def test_what_is_paid_happens_more_often(tuned: Make, reward: str, gain: float) -> None:
    out = tuned(method="grpo", reward=reward, steps=40, max_new_tokens=8)
    assert paid(out, reward) > paid(reference_path("base"), reward) + gain


@pytest.fixture(scope="module")
def heldout() -> list[str]:
    return documents("reference:heldout", samples=60, seed=0)


@pytest.mark.slow
def test_lora_wins_back_what_quantisation_lost(make: Make, heldout: list[str]) -> None:
    base = reference_path("base")
    packed = make(rtn, base, bits=2, group_size=128)
    tuned = make(lora, packed, data="reference:calibration_text", epochs=2)
    lost, left = (loss(path, heldout) - loss(base, heldout) for path in (packed, tuned))
    assert lost > 0.04 and left < 0.6 * lost


@pytest.mark.slow
def test_continued_training_heals_a_pruned_model(make: Make, heldout: list[str]) -> None:
    base = reference_path("base")
    pruned = make(prune, base, method="magnitude", sparsity=0.7)
    healed = make(continue_, pruned, data="reference:calibration_text", epochs=2)
    lost, left = (loss(path, heldout) - loss(base, heldout) for path in (pruned, healed))
    assert lost > 0.1 and left < lost / 2
    zeros = sum(int((w == 0).sum()) for n, w in load_file(healed / "model.safetensors").items() if "proj" in n)
    assert zeros >= sum(int((w == 0).sum()) for n, w in load_file(pruned / "model.safetensors").items() if "proj" in n)


@pytest.mark.slow
def test_from_scratch_is_worse_than_the_parent_and_better_than_chance(make: Make, heldout: list[str]) -> None:
    base = reference_path("base")
    out = make(pretrain, base, data="reference:calibration_text", epochs=5)
    assert size(out) == size(base)
    assert loss(base, heldout) < loss(out, heldout) < 0.75 * math.log(1536)
