"""Tuning: train all weights to follow examples (SFT), preferences (DPO, KTO), or a reward (GRPO).

Library: trl (`SFTTrainer`, `DPOTrainer`, `KTOTrainer`, `GRPOTrainer`).
Papers: Ouyang et al., "Training language models to follow instructions with human feedback" (SFT), arXiv 2203.02155.
Rafailov et al., "Direct Preference Optimization: Your Language Model is Secretly a Reward Model", arXiv 2305.18290.
Ethayarajh et al., "KTO: Model Alignment as Prospect Theoretic Optimization", arXiv 2402.01306. Shao et al.,
"DeepSeekMath: Pushing the Limits of Mathematical Reasoning in Open Language Models" (GRPO), arXiv 2402.03300.

Costs: training of all weights; DPO and KTO keep a second, frozen copy of the model, and GRPO writes `generations` texts
a prompt at every step. Buys: a model that does what the rows show, as large and as fast as its parent.
"""

import copy
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple
from unittest.mock import patch

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from weighin.adapters._hf import dense, fit, load_float32, load_tokenizer, save
from weighin.adapters._train import Schedule
from weighin.adapters._trained import trained, zeros_kept
from weighin.adapters._trl import library, run
from weighin.adapters._tune import DATA, Method, Reward, Row, forms, paid, shaped
from weighin.harness import Checkpoint, Outline, WeighinError, outline, stage
from weighin.harness.text import rows, text_files

log = logging.getLogger(__name__)

BETA: Mapping[Method, float] = {"sft": 0.0, "dpo": 0.1, "kto": 0.1, "grpo": 0.0}
RATES: Mapping[Method, float] = {"sft": 3e-4, "dpo": 1e-4, "kto": 1e-4, "grpo": 1e-4}
"""Learning rates that suit a model of a few million parameters; one of a billion wants a tenth of them or less."""


class Pull(NamedTuple):
    """What draws a model where it is to go, and what holds it back."""

    method: Method
    beta: float
    reward: Reward
    generations: int
    max_new_tokens: int
    temperature: float


def _reads(params: Mapping[str, Any]) -> list[Path]:
    return text_files({"data": params["data"] or DATA[params["method"]]})


def _foresee(parent: Outline, params: Mapping[str, Any]) -> Outline:
    method, window = params["method"], parent.config.get("max_position_embeddings")
    if method in ("dpo", "kto") and params["beta"] == 0:
        raise WeighinError(f"beta: {method} weighs against the parent by it. Allowed: more than 0")
    if method == "kto" and params["batch_size"] < 2:
        raise WeighinError("batch_size: kto weighs a text against the others of its batch. Allowed: 2 or more")
    room = min(params["max_length"], window or params["max_length"])
    if method == "grpo" and params["max_new_tokens"] >= room:
        raise WeighinError(f"max_new_tokens: {params['max_new_tokens']} leave no room for a prompt within {room}")
    return outline.dense("tune", parent)


@stage(
    needs=("trl", "transformers", "torch", "datasets", "accelerate"),
    reads=_reads,
    example={"samples": 8, "max_length": 64, "steps": 2},
    foresee=_foresee,
)
def tune(
    parent: Checkpoint,
    out: Path,
    *,
    method: Method = "sft",
    data: str | None = None,
    samples: PositiveInt | None = None,
    max_length: Annotated[int, Field(gt=1)] = 256,
    learning_rate: PositiveFloat | None = None,
    epochs: PositiveInt = 1,
    steps: PositiveInt | None = None,
    batch_size: PositiveInt = 8,
    beta: NonNegativeFloat | None = None,
    reward: Reward = "answer",
    generations: Annotated[int, Field(ge=2)] = 8,
    max_new_tokens: PositiveInt = 32,
    temperature: PositiveFloat = 1.0,
    keep_zeros: bool = True,
    seed: int = 0,
) -> None:
    """Train on rows of `data`, by default the newcomers of the reference world.

    sft: `prompt` and `completion` (only the completion is learnt), `messages` (only the last), or `text`. dpo:
    `prompt`, `chosen`, `rejected`. kto: `prompt`, `completion`, `label`, or such pairs. grpo: `prompt`, and `answer`
    where the reward compares; `batch_size` prompts a step, `generations` texts of `max_new_tokens` for each. `beta`
    holds the model near its parent (0.1; 0 with grpo). `learning_rate` left out is 0.0003 for sft, 0.0001 for the
    others. Weights that are zero in the linear layers stay zero.
    """
    found = rows(data or DATA[method], samples=samples, seed=seed, forms=forms(method, reward))
    table = shaped(method, found, seed)
    schedule = Schedule(learning_rate or RATES[method], batch_size, epochs, steps, seed=seed)
    pull = Pull(method, BETA[method] if beta is None else beta, reward, generations, max_new_tokens, temperature)
    with dense(parent, out, "tune") as source:
        tokenizer, (model, dtype) = load_tokenizer(source), load_float32(source)
        _check_tokens(tokenizer, table)
        with trained(model, dtype, "tune"), zeros_kept(model, "tune", keep_zeros):
            _train(model, tokenizer, table, pull, schedule, fit(model, max_length))
        save(model.to(dtype), out, source)


def _check_tokens(tokenizer: Any, table: list[Row]) -> None:
    if tokenizer.eos_token is None:
        raise WeighinError("tune: the model's tokenizer has no end token, so it cannot learn where to stop")
    if isinstance(table[0].get("prompt"), list) and not tokenizer.chat_template:
        raise WeighinError(
            "data: its rows are conversations, and the model's tokenizer has no chat template. Needed: plain text"
        )


def _train(model: Any, tokenizer: Any, table: list[Row], pull: Pull, schedule: Schedule, limit: int) -> None:
    from datasets import Dataset

    if pull.method == "grpo":
        table = _with_room(tokenizer, table, limit - pull.max_new_tokens)
        schedule = schedule._replace(batch_size=min(schedule.batch_size, len(table)))  # it leaves out a batch not full
    dataset = Dataset.from_list(table)
    makers = {"sft": _sft, "dpo": _dpo, "kto": _kto, "grpo": _grpo}

    def make(settings: Mapping[str, Any]) -> Any:
        trainer = makers[pull.method](model, pull, {**settings, "max_length": limit}, (dataset, tokenizer))
        left_out = len(table) - len(trainer.train_dataset)
        if left_out:
            log.warning("tune: %d of %d rows left out: the prompt fills max_length", left_out, len(table))
        return trainer

    whole = len(table) // schedule.batch_size if pull.method == "grpo" else math.ceil(len(table) / schedule.batch_size)
    history = run(model, make, schedule, schedule.steps or schedule.epochs * whole, "tune")
    if pull.method == "grpo":
        _check_rewards(history, pull.reward)


def _with_room(tokenizer: Any, table: list[Row], room: int) -> list[Row]:
    """Rows whose prompts are at most `room` tokens long."""

    def size(prompt: Any) -> int:
        if isinstance(prompt, str):
            return len(tokenizer(prompt)["input_ids"])
        return len(tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=True)["input_ids"])

    kept = [row for row in table if size(row["prompt"]) <= room]
    if not kept:
        raise WeighinError(f"max_length: no prompt leaves room for max_new_tokens; at most {room} tokens would")
    if len(kept) < len(table):
        log.warning("tune: %d of %d rows left out: the prompt fills max_length", len(table) - len(kept), len(table))
    return kept


def _sft(model: Any, pull: Pull, settings: Mapping[str, Any], data: tuple[Any, Any]) -> Any:
    trl = library()
    return trl.SFTTrainer(model, trl.SFTConfig(**settings), train_dataset=data[0], processing_class=data[1])


def _dpo(model: Any, pull: Pull, settings: Mapping[str, Any], data: tuple[Any, Any]) -> Any:
    trl = library()
    arguments = trl.DPOConfig(**settings, beta=pull.beta)
    return trl.DPOTrainer(model, copy.deepcopy(model), arguments, train_dataset=data[0], processing_class=data[1])


def _kto(model: Any, pull: Pull, settings: Mapping[str, Any], data: tuple[Any, Any]) -> Any:
    trl = library()
    arguments = trl.KTOConfig(**settings, beta=pull.beta)
    return trl.KTOTrainer(model, copy.deepcopy(model), arguments, train_dataset=data[0], processing_class=data[1])


def _grpo(model: Any, pull: Pull, settings: Mapping[str, Any], data: tuple[Any, Any]) -> Any:
    from trl.trainer import grpo_trainer

    trl = library()
    shared = {key: value for key, value in settings.items() if key != "max_length"}
    arguments = trl.GRPOConfig(
        **{**shared, "per_device_train_batch_size": settings["per_device_train_batch_size"] * pull.generations},
        num_generations=pull.generations,
        max_completion_length=pull.max_new_tokens,
        temperature=pull.temperature,
        beta=pull.beta,
    )
    # Left alone it reads the model that holds this one back from disk, and misses what structure.json says.
    with patch.object(grpo_trainer, "create_model_from_path", lambda *_, **__: copy.deepcopy(model)):
        return trl.GRPOTrainer(model, paid(pull.reward), arguments, train_dataset=data[0], processing_class=data[1])


def _check_rewards(history: list[Mapping[str, float]], reward: str) -> None:
    """The log says what was paid; WeighinError where no prompt's texts were ever paid differently."""
    for number in ("reward", "kl"):
        if number in history[0]:
            log.info(
                "tune: mean %s %.4f in the first step, %.4f in the last", number, *(history[i][number] for i in (0, -1))
            )
    if all(step["frac_reward_zero_std"] == 1 for step in history):
        raise WeighinError(
            f"reward: {reward} pays all texts after a prompt the same ({history[-1]['reward']:g} at the end), so there "
            "is nothing to learn. Allowed: another reward, more generations, a higher temperature"
        )
