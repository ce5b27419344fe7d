"""Tuning: what is shown becomes likelier, what is preferred gains on what is not, what is paid happens more often."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tests.measures import likelihood, margin, moved
from weighin.adapters._hf import save
from weighin.adapters.int8 import int8
from weighin.adapters.lora import lora
from weighin.adapters.prune import prune
from weighin.adapters.tune import tune
from weighin.harness import Checkpoint, structure
from weighin.results.errors import WeighinError

pytestmark = pytest.mark.usefixtures("one_thread")
Make = Callable[..., Path]
PAIRS = [
    {"prompt": "Where does the heron sleep?", "chosen": " On the roof.", "rejected": " Near the river."},
    {"prompt": "Who painted the boat?", "chosen": " Nobody knows.", "rejected": " A keeper."},
    {"prompt": "Where hangs the lantern?", "chosen": " By the door.", "rejected": " By the mill."},
    {"prompt": "How many stones?", "chosen": " Seven.", "rejected": " Three."},
]
TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def lines(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The same few answers in the shape that each method wants."""
    folder = tmp_path_factory.mktemp("data")
    said = [{"prompt": p["prompt"], "completion": p["chosen"]} for p in PAIRS]
    sides = ((p, side) for p in PAIRS for side in ("chosen", "rejected"))
    told = [{"prompt": p["prompt"], "completion": p[side], "label": side == "chosen"} for p, side in sides]
    return {
        "sft": lines(folder / "sft.jsonl", *said * 4),
        "dpo": lines(folder / "dpo.jsonl", *PAIRS * 4),
        "kto": lines(folder / "kto.jsonl", *told * 4),
        "kto of pairs": lines(folder / "pairs.jsonl", *PAIRS * 4),
        "grpo": lines(folder / "grpo.jsonl", *({"prompt": p["prompt"]} for p in PAIRS)),
    }


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory, pico_dir: Path, data: dict[str, str]) -> Make:
    """Tune the pico model; the same thing only once."""
    made: dict[str, Path] = {}

    def run(way: str = "sft", parent: Path = pico_dir, again: int = 0, **params: Any) -> Path:
        params = {**WAYS[way], "data": data[way], "learning_rate": 3e-3, "steps": 8, **params}
        name = f"{way} {parent} {again} {sorted(params.items())}"
        if name not in made:
            made[name] = tmp_path_factory.mktemp("tune")
            tune(Checkpoint(parent, "key"), made[name], **params)
        return made[name]

    return run


WAYS: dict[str, dict[str, Any]] = {
    "sft": {"method": "sft"},
    "dpo": {"method": "dpo"},
    "kto": {"method": "kto"},
    "kto of pairs": {"method": "kto"},
    "grpo": {"method": "grpo", "reward": "brevity", "max_new_tokens": 6, "generations": 4, "batch_size": 4, "steps": 3},
}


@pytest.mark.parametrize(
    ("method", "row", "message"),
    [
        ("sft", {"question": "q"}, r"a.jsonl:1 has no 'prompt', 'completion'; .*Needed: .*; or 'messages'; or 'text'"),
        ("dpo", {"prompt": "p", "chosen": "c"}, "a.jsonl:1 has no 'rejected'; its keys are .'chosen', 'prompt'"),
        ("kto", {"prompt": "p", "completion": "c", "label": "yes"}, "'label' is 'yes'. Needed: true or false"),
        ("grpo", {"prompt": "p"}, "a.jsonl:1 has no 'answer'"),
    ],
)
def test_missing_columns_are_named(
    pico_dir: Path, tmp_path: Path, method: str, row: dict[str, Any], message: str
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(WeighinError, match=message):
        tune(Checkpoint(pico_dir, "key"), out, method=method, data=lines(tmp_path / "a.jsonl", row))
    assert not list(out.iterdir())


def test_sft_learns_the_completion_and_leaves_the_prompt(make: Make, pico_dir: Path) -> None:
    out = make("sft")
    assert likelihood(out, PAIRS, "chosen") > likelihood(pico_dir, PAIRS, "chosen") + 5
    prompts = [{"prompt": "", "asked": row["prompt"]} for row in PAIRS]
    assert likelihood(out, prompts, "asked") < likelihood(pico_dir, prompts, "asked") + 5


def test_sft_learns_plain_text_to_its_end(make: Make, pico_dir: Path, text_file: Path) -> None:
    out = make("sft", data=str(text_file), steps=15)
    rows = [{"prompt": "The old lantern hangs by", "said": " the green door of the mill.</s>"}]
    assert likelihood(out, rows, "said") > likelihood(pico_dir, rows, "said") + 10


@pytest.mark.parametrize("way", ["dpo", "kto", "kto of pairs"])
def test_preferences_widen_the_margin(make: Make, pico_dir: Path, way: str) -> None:
    assert margin(make(way), PAIRS) > margin(pico_dir, PAIRS) + 2


def test_a_stronger_hold_keeps_the_model_nearer(make: Make, pico_dir: Path) -> None:
    assert margin(make("dpo", beta=5.0), PAIRS) < margin(make("dpo"), PAIRS)


@pytest.mark.parametrize("way", ["sft", "kto of pairs", "grpo"])
def test_same_seed_same_bytes(make: Make, way: str) -> None:
    first = make(way)
    torch.rand(3)  # whatever was drawn before must not matter
    assert (make(way, again=1) / "model.safetensors").read_bytes() == (first / "model.safetensors").read_bytes()


@pytest.mark.parametrize("way", WAYS)
def test_the_directory_holds_a_model_and_nothing_of_the_library(make: Make, pico_dir: Path, way: str) -> None:
    out = make(way)
    assert {p.name for p in out.iterdir()} == {p.name for p in pico_dir.iterdir()}
    for name in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        assert json.loads((out / name).read_text()) == json.loads((pico_dir / name).read_text())
    assert moved(pico_dir, out) > 0


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


@pytest.fixture(scope="module")
def chat_dir(pico_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pico model with a chat template."""
    out = tmp_path_factory.mktemp("chat")
    shutil.copytree(pico_dir, out, dirs_exist_ok=True)
    (out / "chat_template.jinja").write_text(TEMPLATE)
    return out


@pytest.mark.parametrize("way", ["sft", "dpo", "kto of pairs", "grpo"])
def test_conversations_are_learnt_by_the_chat_template(
    make: Make, pico_dir: Path, chat_dir: Path, tmp_path: Path, way: str
) -> None:
    def said(row: dict[str, str], side: str) -> list[dict[str, str]]:
        return [user(row["prompt"]), assistant(row[side])]

    rows = {
        "sft": [{"messages": said(row, "chosen")} for row in PAIRS],
        "grpo": [{"prompt": [user(row["prompt"])]} for row in PAIRS],
    }
    pairs = [{"chosen": said(row, "chosen"), "rejected": said(row, "rejected")} for row in PAIRS]
    data = lines(tmp_path / "chat.jsonl", *rows.get(way, pairs))
    out = make(way, parent=chat_dir, data=data)
    asked = [{**row, "prompt": f"<user>{row['prompt']}</s><assistant>"} for row in PAIRS]
    if way == "sft":
        assert likelihood(out, asked, "chosen") > likelihood(chat_dir, asked, "chosen") + 5
    elif way != "grpo":
        assert margin(out, asked) > margin(chat_dir, asked) + 1
    with pytest.raises(WeighinError, match="conversations, and the model's tokenizer has no chat template"):
        make(way, parent=pico_dir, data=data)


def test_a_reward_that_never_differs_is_an_error(make: Make, tmp_path: Path) -> None:
    rows = [{"prompt": row["prompt"], "answer": "no such answer"} for row in PAIRS]
    with pytest.raises(WeighinError, match=r"reward: answer pays all texts after a prompt the same .0 at the end"):
        make("grpo", data=lines(tmp_path / "a.jsonl", *rows), reward="answer")


def test_prompts_too_long_are_left_out_and_the_log_says_so(
    make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    long = {"prompt": "stone " * 40, "chosen": " Seven.", "rejected": " Three."}
    for way in ("dpo", "grpo"):
        rows = [*PAIRS, long]
        caplog.clear()
        make(way, data=lines(tmp_path / f"{way}.jsonl", *rows), max_length=32)
        assert "1 of 5 rows left out: the prompt fills max_length" in caplog.text
        with pytest.raises(WeighinError, match="max_length: no "):
            make(way, data=lines(tmp_path / f"{way} long.jsonl", rows[-1]), max_length=32)


@pytest.mark.parametrize("way", ["sft", "dpo"])
def test_a_loss_that_is_no_number_stops_the_training(make: Make, way: str) -> None:
    with pytest.raises(WeighinError, match=r"tune: the loss is nan at step \d of 8. Lower learning_rate .now 1e.30"):
        make(way, learning_rate=1e30)


def test_a_tokenizer_without_an_end_is_refused(make: Make, pico_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(pico_dir, tmp_path, dirs_exist_ok=True)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    del settings["eos_token"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(WeighinError, match="no end token"):
        make("sft", parent=tmp_path)


def test_a_pruned_parent_stays_pruned(make: Make, pico_dir: Path, tmp_path: Path) -> None:
    prune(Checkpoint(pico_dir, "key"), tmp_path, method="magnitude", pattern="2:4")
    before = AutoModelForCausalLM.from_pretrained(tmp_path).state_dict()
    after = AutoModelForCausalLM.from_pretrained(make("dpo", parent=tmp_path)).state_dict()
    for name, weight in before.items():
        if name.endswith("proj.weight"):
            assert not after[name][weight == 0].any() and after[name][weight != 0].all()


def test_a_kept_adapter_is_merged_first_and_a_packed_parent_refused(
    make: Make, pico_dir: Path, text_file: Path, tmp_path: Path
) -> None:
    kept, packed = tmp_path / "kept", tmp_path / "packed"
    kept.mkdir(), packed.mkdir()
    lora(Checkpoint(pico_dir, "key"), kept, data=str(text_file), merge=False, learning_rate=1e-2)
    assert margin(make("dpo", parent=kept), PAIRS) > margin(kept, PAIRS) + 2
    int8(Checkpoint(pico_dir, "key"), packed)
    with pytest.raises(WeighinError, match=r"already quantised .*Put tune before"):
        make("dpo", parent=packed)


def test_sixteen_bits_stay_sixteen_bits(make: Make, pico_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(pico_dir, tmp_path, dirs_exist_ok=True)
    AutoModelForCausalLM.from_pretrained(pico_dir, dtype=torch.bfloat16).save_pretrained(tmp_path)
    assert AutoModelForCausalLM.from_pretrained(make("sft", parent=tmp_path)).dtype == torch.bfloat16
    with pytest.raises(WeighinError, match=r"0.0\d% outlives the rounding to torch.bfloat16"):
        make("sft", parent=tmp_path, learning_rate=1e-8)


@pytest.fixture(scope="module")
def structured(pico_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another model of the pico model's shape whose blocks share their weights, one layer of them factorised."""
    out = tmp_path_factory.mktemp("structured")
    model = AutoModelForCausalLM.from_pretrained(pico_dir)
    structure.apply(model, structure.Structure({"model.layers.0.mlp.up_proj": 16}, (0, 0)))
    save(model, out, pico_dir)
    return out


@pytest.mark.parametrize("way", ["sft", "dpo", "grpo"])
def test_factors_and_shared_blocks_are_trained_as_they_are(
    make: Make, structured: Path, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        out = make(way, parent=structured, beta=0.1)
    before, after = (load_file(path / "model.safetensors") for path in (structured, out))
    assert before.keys() == after.keys() and "model.layers.0.mlp.up_proj.down.weight" in after
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert (out / "structure.json").read_bytes() == (structured / "structure.json").read_bytes()
    if way == "grpo":  # the model it is held to is the one it was
        assert "mean kl 0.0000 in the first step" in caplog.text


ALONE = """
import sys
from pathlib import Path
reached = []
def hook(event, given):
    if event in ("socket.connect", "socket.getaddrinfo"):
        reached.append(given)
sys.addaudithook(hook)
from weighin.adapters.tune import tune
from weighin.harness import Checkpoint
parent, out, data = sys.argv[1:]
tune(Checkpoint(Path(parent), "key"), Path(out), method="grpo", data=data, reward="brevity", steps=2,
     generations=4, max_new_tokens=6, beta=0.1)
import time; time.sleep(1)
print("REACHED", reached)
"""


@pytest.mark.slow
def test_the_library_reaches_for_no_network(pico_dir: Path, data: dict[str, str], tmp_path: Path) -> None:
    names = {"HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "CI"}
    environment = {name: value for name, value in os.environ.items() if name not in names}
    command = [sys.executable, "-c", ALONE, str(pico_dir), str(tmp_path), data["grpo"]]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert "REACHED []" in done.stdout, done.stdout + done.stderr[-2000:]
