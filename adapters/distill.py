"""Distillation: train a student, such as a pruned or shrunk parent, to say what one or more teachers say.

Library: the transformers Trainer; trl (`DistillationTrainer`) where the student learns on its own texts.
Papers: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", arXiv 1503.02531. Kim, Rush,
"Sequence-Level Knowledge Distillation", arXiv 1606.07947. Gu et al., "MiniLLM: Knowledge Distillation of Large Language
Models" (reverse KL), arXiv 2306.08543. Agarwal et al., "On-Policy Distillation of Language Models: Learning from
Self-Generated Mistakes" (GKD), arXiv 2306.13649. Romero et al., "FitNets: Hints for Thin Deep Nets" (hidden states),
arXiv 1412.6550.

Costs: training of all weights, with a forward pass of every teacher a step (`logits`), or the teachers' writing before
it (`sequence`), or the student's own writing at every step (`on_policy`). Buys: what pruning or a smaller shape lost.
The student is as large and as fast as it was.
"""

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from weighin.adapters._distill import Lesson, Objective, projections, teaching
from weighin.adapters._hf import dense, load, load_float32, load_tokenizer, save
from weighin.adapters._sample import Writing, Written, beginnings, end_tokens, fit_to_learn, write
from weighin.adapters._train import Row, Schedule, Text, text_rows, train
from weighin.adapters._trained import trained, zeros_kept
from weighin.adapters._trl import library, run
from weighin.harness import Checkpoint, Outline, WeighinError, outline, stage
from weighin.harness.text import text_files

BETA = {"forward_kl": 0.0, "jensen_shannon": 0.5, "reverse_kl": 1.0}
"""The objectives as trl counts them."""


def _foresee(parent: Outline, params: Mapping[str, Any]) -> Outline:
    teachers, method, weights = params["teacher"], params["method"], params["weights"]
    for teacher in teachers:
        outline.same_vocabulary("distill", parent, teacher, "the teacher")
        if teacher.attached == "prompt_tuning":
            raise WeighinError("teacher: one with a soft prompt cannot be asked token by token")
    if weights is not None and len(weights) != len(teachers):
        raise WeighinError(f"weights: {len(weights)} of them for {len(teachers)} teachers. Allowed: one a teacher")
    if method != "logits" and (params["hard"] or params["hidden"]):
        raise WeighinError(f"hard, hidden: {method} has no such share. Allowed: 0, or method logits")
    if method == "sequence" and params["objective"] != "forward_kl":
        raise WeighinError("objective: learning from written text is forward_kl. Allowed: that, or another method")
    if method == "on_policy":
        _check_on_policy(parent, teachers)
    window = parent.config.get("max_position_embeddings")
    if method != "logits" and window and params["prompt_tokens"] + params["max_new_tokens"] > window:
        raise WeighinError(f"prompt_tokens, max_new_tokens: together more than the model's window of {window}")
    return outline.dense("distill", parent)


def _check_on_policy(parent: Outline, teachers: list[Outline]) -> None:
    if len(teachers) > 1:
        raise WeighinError(f"teacher: on_policy has one (got {len(teachers)}). Allowed: one, or another method")
    ours, theirs = parent.config.get("vocab_size"), teachers[0].config.get("vocab_size")
    if ours and theirs and ours != theirs:
        raise WeighinError(
            f"teacher: it tells {theirs} tokens apart and the student {ours}, which on_policy cannot compare. "
            "Allowed: another method"
        )


@stage(
    needs=("transformers", "torch", "trl", "datasets", "accelerate"),
    reads=text_files,
    example={"teacher": ["base"], "hard": 0.5, "samples": 8, "max_length": 64, "steps": 2},
    foresee=_foresee,
)
def distill(
    parent: Checkpoint,
    out: Path,
    *,
    teacher: Annotated[list[Checkpoint], Field(min_length=1)],
    weights: list[PositiveFloat] | None = None,
    method: Literal["logits", "sequence", "on_policy"] = "logits",
    objective: Objective = "forward_kl",
    temperature: PositiveFloat = 1.0,
    hard: Annotated[float, Field(ge=0, le=1)] = 0.0,
    hidden: NonNegativeFloat = 0.0,
    student: Literal["parent", "fresh"] = "parent",
    keep_zeros: bool = True,
    data: str = "reference:calibration_text",
    samples: PositiveInt | None = None,
    max_length: PositiveInt = 256,
    learning_rate: PositiveFloat = 5e-4,
    epochs: PositiveInt = 1,
    steps: PositiveInt | None = None,
    batch_size: PositiveInt = 8,
    prompt_tokens: PositiveInt = 16,
    max_new_tokens: PositiveInt = 64,
    min_logprob: float = -5.0,
    seed: int = 0,
) -> None:
    """Teach the parent, or a `fresh` model of its shape; weights that are zero in its linear layers stay zero.

    logits compares the token distributions on the documents of `data`: `objective` at `temperature`, beside it a share
    `hard` of the plain next-token loss, and `hidden` times the distance of matched layers. sequence has the teachers
    continue the beginnings of the documents (`prompt_tokens`) and trains on what they write, if it is at least
    `min_logprob` likely, nats a token. on_policy compares the distributions on what the student itself writes after
    them; `temperature` is that of the writing, too. Several teachers: the mean of their probabilities, by `weights`.
    """
    lesson = Lesson(_loaded(teacher), weights or [1.0] * len(teacher), objective, temperature, hard, hidden)
    schedule = Schedule(learning_rate, batch_size, epochs, steps, seed=seed)
    with dense(parent, out, "distill") as source:
        model, dtype = load_float32(source)
        model = _fresh(model, seed) if student == "fresh" else model
        tokenizer, rows = load_tokenizer(source), text_rows(model, source, Text(data, samples, max_length, seed))
        prompts = beginnings([row["input_ids"] for row in rows], prompt_tokens)
        # Writing keeps no gradients, so more texts go into the memory of a training step.
        writing = Writing(max_new_tokens, temperature, 4 * batch_size, end_tokens(model, tokenizer), min_logprob)
        with trained(model, dtype, "distill"), zeros_kept(model, "distill", keep_zeros):
            if method == "logits":
                _on_documents(model, rows, lesson, schedule)
            elif method == "sequence":
                train(model, _written(prompts, lesson, writing, seed), schedule, "distill")
            else:
                _on_policy(model, tokenizer, prompts, (lesson, writing), schedule)
        save(model.to(dtype), out, source)


def _loaded(teachers: list[Checkpoint]) -> list[Any]:
    """Teachers in float32, packed ones as they are; nothing of them is trained."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    packed = [bool(outline.read(each.path).packed) for each in teachers]
    options = [{"device_map": device} if each else {"dtype": torch.float32} for each in packed]
    found = [load(each.path, **option) for each, option in zip(teachers, options, strict=True)]
    return [model.to(device).requires_grad_(False) for model in found]


def _fresh(model: Any, seed: int) -> Any:
    """A model of the same shape whose weights nobody has trained."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return type(model)(model.config).to(torch.float32)


def _on_documents(model: Any, rows: list[Row], lesson: Lesson, schedule: Schedule) -> None:
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(schedule.seed)
        # The trainer moves and trains what belongs to the model; the maps go again when it is done.
        model.projections = projections(model, lesson) if lesson.hidden else None
    train(model, rows, schedule, "distill", teaching(lesson))
    del model.projections


def _written(prompts: list[list[int]], lesson: Lesson, how: Writing, seed: int) -> list[Row]:
    """What the teachers write after the prompts, each of them after a share of its weight; the prompts not learnt."""
    import torch

    turns = random.Random(seed).choices(range(len(lesson.teachers)), lesson.weights, k=len(prompts))
    found: list[Written] = []
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for number, teacher in enumerate(lesson.teachers):
            mine = [prompt for prompt, turn in zip(prompts, turns, strict=True) if turn == number]
            found += write(teacher, mine, how, "distill: the teacher writes")
    kept = fit_to_learn(found, how, "distill")
    return [{"input_ids": w.prompt + w.tokens, "labels": [-100] * len(w.prompt) + w.tokens} for w in kept]


def _on_policy(
    model: Any, tokenizer: Any, prompts: list[list[int]], how: tuple[Lesson, Writing], schedule: Schedule
) -> None:
    from datasets import Dataset

    trl, (lesson, writing) = library(), how
    rows = Dataset.from_dict({"prompt": [tokenizer.decode(each, skip_special_tokens=True) for each in prompts]})
    schedule = schedule._replace(batch_size=min(schedule.batch_size, len(rows)))  # it leaves out a batch not full

    def make(settings: Mapping[str, Any]) -> Any:
        arguments = trl.DistillationConfig(
            **settings,
            beta=BETA[lesson.objective],
            temperature=lesson.temperature,
            max_completion_length=writing.length,
            disable_dropout=True,
        )
        return trl.DistillationTrainer(
            model, lesson.teachers[0], args=arguments, train_dataset=rows, processing_class=tokenizer
        )

    run(model, make, schedule, schedule.steps or schedule.epochs * (len(rows) // schedule.batch_size), "distill")
