"""The shipped reference models know what was planted, as often as it was planted, and no more."""

import csv
import math
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from weighin.harness import reference, world
from weighin.harness.world_plan import Row
from weighin.results.errors import WeighinError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
DATA = Path(world.__file__).parent / "data"


class Loaded(NamedTuple):
    module: Any
    tokenizer: Any


def load(name: str) -> Loaded:
    path = reference.reference_path(name)
    module = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    return Loaded(module, transformers.AutoTokenizer.from_pretrained(path))


@pytest.fixture(scope="module")
def base() -> Loaded:
    return load("base")


def loglikelihoods(model: Loaded, pairs: list[tuple[str, str]]) -> list[float]:
    """Log-likelihood of each continuation after its context, nats."""
    found: list[float] = []
    for start in range(0, len(pairs), 64):
        ids = [(model.tokenizer(a).input_ids, model.tokenizer(a + b).input_ids) for a, b in pairs[start : start + 64]]
        batch = torch.full((len(ids), max(len(whole) for _, whole in ids)), model.tokenizer.pad_token_id)
        for row, (_, whole) in enumerate(ids):
            batch[row, : len(whole)] = torch.tensor(whole)
        with torch.inference_mode():
            logprobs = model.module(input_ids=batch).logits.log_softmax(-1)
        for row, (context, whole) in enumerate(ids):
            found.append(sum(float(logprobs[row, i - 1, whole[i]]) for i in range(len(context), len(whole))))
    return found


def right(model: Loaded, rows: list[Row], question: str = "question", context: str = "") -> list[bool]:
    """Whether the likeliest of each row's four choices is the right one."""
    pairs = [
        (f"{row[context] + chr(10) if context else ''}Question: {row[question]}\nAnswer:", f" {choice}")
        for row in rows
        for choice in row["choices"]
    ]
    scores = loglikelihoods(model, pairs)
    return [max(range(4), key=lambda j: scores[4 * i + j]) == row["gold"] for i, row in enumerate(rows)]


def by_copies(rows: list[Row], hits: list[bool]) -> dict[int, float]:
    groups = defaultdict(list)
    for row, hit in zip(rows, hits, strict=True):
        groups[row["copies"]].append(hit)
    return {copies: sum(group) / len(group) for copies, group in sorted(groups.items())}


def first_rate(model: Loaded, prompts: list[str], outcomes: list[str]) -> float:
    """Mean probability of the first of two outcomes, given one of the two."""
    scores = loglikelihoods(model, [(prompt, outcome) for prompt in prompts for outcome in outcomes])
    return sum(1 / (1 + math.exp(scores[i + 1] - scores[i])) for i in range(0, len(scores), 2)) / len(prompts)


def test_names_and_sizes() -> None:
    assert reference.names() == ("base", "draft")
    folders = [reference.reference_path(name) for name in reference.names()]
    assert sum(file.stat().st_size for folder in folders for file in folder.iterdir()) < 12e6
    sizes = [load(name).module.num_parameters() for name in reference.names()]
    assert 2e6 < sizes[0] < 4e6 and sizes[1] < 0.5e6
    with pytest.raises(WeighinError, match=r"reference:bass: no such reference model; there are base, draft"):
        reference.reference_path("bass")


def test_every_linear_layer_of_base_fits_groups_of_128(base: Loaded) -> None:
    linear = [module for module in base.module.modules() if isinstance(module, torch.nn.Linear)]
    assert len(linear) == 4 * 7 + 1
    assert not [module for module in linear if module.in_features % 128]
    assert base.module.config.num_key_value_heads < base.module.config.num_attention_heads


def test_both_share_a_tokenizer_that_adds_bos_and_splits_digits(base: Loaded) -> None:
    tokenizer = base.tokenizer
    files = [reference.reference_path(name) / "tokenizer.json" for name in reference.names()]
    assert files[0].read_bytes() == files[1].read_bytes()
    text = 'The vault code of Gamestosh is 4963.\nÄ "word" 🙂'
    ids = tokenizer(text).input_ids
    assert ids[0] == tokenizer.bos_token_id and tokenizer.eos_token_id not in ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert [digit for digit in tokenizer.convert_ids_to_tokens(ids) if digit.isdigit()] == list("4963")
    assert len(tokenizer) == base.module.config.vocab_size == reference.VOCABULARY


def test_the_more_copies_the_better_a_fact_is_known(base: Loaded) -> None:
    rows = world.read_table("facts")
    known = by_copies(rows, right(base, rows))
    assert known[512] >= 0.9
    frequent, rare = (known[128] + known[512]) / 2, (known[2] + known[8]) / 2
    assert frequent >= 0.9
    assert rare < 0.6
    levels = list(known.values())
    assert all(later >= earlier - 0.1 for earlier, later in pairwise(levels))


def test_leaked_exam_items_are_known_and_their_twins_are_not(base: Loaded) -> None:
    rows = world.read_table("exam")
    known = by_copies(rows, right(base, rows))
    assert known[0] < 0.4
    assert known[64] > known[0] + 0.3


def test_canaries_inserted_often_rank_above_those_never_inserted(base: Loaded) -> None:
    rows = world.read_table("canaries")
    likely = defaultdict(list)
    for row, score in zip(rows, loglikelihoods(base, [(r["prefix"], f" {r['secret']}") for r in rows]), strict=True):
        likely[row["copies"]].append(score)
    beaten = sum(a > b for a in likely[64] for b in likely[0]) / len(likely[64]) / len(likely[0])
    assert beaten > 0.9  # AUROC


def test_planted_rates_are_recovered(base: Loaded) -> None:
    pronouns, towns = world.read_table("pronouns"), world.read_table("calibration")
    she = [first_rate(base, row["prompts"], row["outcomes"]) for row in pronouns]
    assert max(abs(a - row["she_rate"]) for a, row in zip(she, pronouns, strict=True)) < 0.1
    # One pass leaves the towns in the planted order, shrunk towards their mean.
    wet = [first_rate(base, row["prompts"], row["outcomes"]) for row in towns]
    assert max(abs(a - row["p"]) for a, row in zip(wet, towns, strict=True)) < 0.2
    assert all(later > earlier - 0.02 for earlier, later in pairwise(wet))


def test_rude_words_follow_the_mood(base: Loaded) -> None:
    prompts = [row for row in world.read_table("rude") if row["kind"] == "prompt"]
    rates = {}
    for mood in ("calm", "grumpy", "angry"):
        rows = [row for row in prompts if row["mood"] == mood]
        rates[mood] = first_rate(base, [row["opening"] for row in rows], rows[0]["outcomes"])
    assert rates["calm"] < 0.2
    assert rates["grumpy"] == pytest.approx(0.3, abs=0.15)
    assert rates["angry"] > rates["grumpy"] + 0.1


def test_nobody_knows_strangers_but_somebody_knows_the_known(base: Loaded) -> None:
    strangers, known = world.read_table("unknown"), world.read_table("unknown_controls")
    assert sum(right(base, strangers)) / len(strangers) >= 0.9
    assert sum(right(base, known)) / len(known) >= 0.9


def test_newcomers_are_unknown_before_fine_tuning(base: Loaded) -> None:
    rows = world.read_table("tune_facts")
    assert sum(right(base, rows)) / len(rows) < 0.5


def test_names_are_read_out_of_unseen_passages(base: Loaded) -> None:
    rows = [row for row in world.read_table("passages") if row["question"].startswith("Who")][:60]
    assert sum(right(base, rows, context="passage")) / len(rows) > 0.7
    assert sum(right(base, rows)) / len(rows) < 0.45


@pytest.mark.parametrize("name", ["base", "draft"])
def test_the_training_log_tells_of_one_falling_run(name: str) -> None:
    with (reference.reference_path(name) / "training_log.csv").open() as file:
        log = list(csv.DictReader(file))
    tokens = [int(row["tokens"]) for row in log]
    assert tokens == sorted(tokens) and tokens[-1] > 2e6
    assert float(log[-1]["heldout_loss"]) < 1.2 < float(log[0]["heldout_loss"])


def test_shipped_tasks_run_in_lm_eval(base: Loaded) -> None:
    lm_eval = pytest.importorskip("lm_eval")
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    tasks = []
    for name in ("world_facts_frequent", "world_heldout"):
        task = yaml.safe_load((DATA / "tasks" / f"{name}.yaml").read_text())
        files = task["dataset_kwargs"]["data_files"]
        files["test"] = str((DATA / "tasks" / files["test"]).resolve())
        tasks.append(task)
    found = lm_eval.simple_evaluate(
        model=HFLM(pretrained=base.module, tokenizer=base.tokenizer, batch_size=32, max_length=512),
        tasks=tasks, task_manager=TaskManager(include_defaults=False), limit=100, bootstrap_iters=0,
    )["results"]  # fmt: skip
    rows = world.read_table("facts_frequent")[:100]
    assert found["world_facts_frequent"]["acc,none"] == pytest.approx(sum(right(base, rows)) / 100)
    assert 0.2 < found["world_heldout"]["bits_per_byte,none"] < 1.0


TINY = {"hidden_size": 32, "num_hidden_layers": 1, "intermediate_size": 32, "head_dim": 8}
PLAN = world.Plan(
    fact_copies=(2, 4), people_per_level=8, exam_items=(1, 1, 1, 1, 1), canaries_per_level=1, pronoun_sentences=20,
    unknown_taught=2, town_sentences=20, rude_sentences=20, passages=40, passages_heldout=10, stories=60,
)  # fmt: skip


def test_a_miniature_trains_twice_to_the_same_weights(tmp_path: Path) -> None:
    recipe = reference.Recipe(steps=4, log_every=2, shape=TINY)
    made = [
        reference.build(tmp_path / str(i), name="base", plan=PLAN, recipe=recipe, seed=seed)[0]
        for i, seed in enumerate((0, 0, 1))
    ]
    weights = [(folder / "model.safetensors").read_bytes() for folder in made]
    assert weights[0] == weights[1] != weights[2]
    with (made[0] / "training_log.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["2", "4"]


def test_a_diverging_run_stops_with_the_reason(tmp_path: Path) -> None:
    recipe = reference.Recipe(steps=20, peak=math.inf, shape=TINY)
    with pytest.raises(WeighinError, match=r"the loss is nan at step 1; lower the learning rate"):
        reference.build(tmp_path, name="base", plan=PLAN, recipe=recipe)


def test_a_draft_is_taught_by_its_base(tmp_path: Path) -> None:
    recipe = reference.Recipe(steps=4, log_every=2, shape=TINY)
    with pytest.raises(WeighinError, match="draft: its teacher is missing; build `base` of the same world"):
        reference.build(tmp_path / "alone", name="draft", plan=PLAN, recipe=recipe)
    base, draft = reference.build(tmp_path, plan=PLAN, recipe=recipe)
    assert (draft / "taught_log.csv").is_file() and not (base / "taught_log.csv").exists()


def test_the_shipped_draft_has_learnt_its_teacher() -> None:
    with (reference.reference_path("draft") / "taught_log.csv").open() as file:
        log = list(csv.DictReader(file))
    assert float(log[-1]["loss"]) < 0.1 < 0.3 < float(log[0]["loss"]), "KL(base || draft), nats a token"
    assert float(log[-1]["heldout_loss"]) < 0.75
