"""The reference models: a small family of Llama architecture, trained here on the reference world's text."""

# A table of keyword arguments has one value type, the configuration it fills has many.
# pyright: reportArgumentType=false

import csv
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from weighin.harness import world
from weighin.results.errors import WeighinError

_SHIPPED = Path(__file__).parent / "data" / "reference"
VOCABULARY = 1536
WINDOW = 512
BOS, EOS, PAD = "<s>", "</s>", "<pad>"

# Every linear layer of `base` reads 256 or 512 numbers: quantisation in groups of 128 fits without padding.
SHAPES: dict[str, dict[str, int]] = {
    "base": {"hidden_size": 256, "num_hidden_layers": 4, "intermediate_size": 512, "head_dim": 64},
    "draft": {"hidden_size": 96, "num_hidden_layers": 2, "intermediate_size": 288, "head_dim": 24},
}


@dataclass(frozen=True)
class Recipe:
    """How a reference model is trained. `peak` is the learning rate after warm-up; `steps` caps a short run."""

    batch: int = 4
    peak: float = 2.5e-3
    floor: float = 0.03
    warmup: float = 0.04
    decay: float = 0.1
    clip: float = 1.0
    passes: int = 1
    steps: int | None = None
    log_every: int = 40
    shape: dict[str, int] = field(default_factory=dict)


RECIPES = {"base": Recipe(), "draft": Recipe(peak=5e-3)}
TAUGHT = Recipe(peak=3e-3)
"""The draft's second pass, in which it learns the base's probabilities instead of the text's words."""


def names() -> tuple[str, ...]:
    """The shipped reference models; `reference:NAME` in a spec."""
    return tuple(sorted(path.parent.name for path in _SHIPPED.glob("*/config.json")))


def reference_path(name: str) -> Path:
    """The folder of a shipped reference model; WeighinError says which there are."""
    if name not in names():
        raise WeighinError(f"reference:{name}: no such reference model; there are {', '.join(names()) or 'none'}")
    return _SHIPPED / name


def build(
    out: Path,
    *,
    seed: int = 0,
    name: Literal["base", "draft", "all"] = "all",
    plan: world.Plan | None = None,
    recipe: Recipe | None = None,
) -> list[Path]:
    """Train reference models from nothing into `out/NAME` and return those folders.

    The draft is taught by the base in `out`, or by the shipped one. Deterministic for a seed, a machine and a number
    of threads. WeighinError when the loss stops being a number, and for a draft of another world without its base.
    """
    plan = plan or world.Plan(seed=seed)
    documents = list(world.corpus(plan))
    tokenizer = make_tokenizer(documents)
    # A model sees where a text begins and ends: the tokenizer adds BOS, packing adds EOS.
    stream = _pack(tokenizer, documents)
    heldout = _pack(tokenizer, [row["text"] for row in world.tables(plan)["heldout"]])
    made = []
    for each in SHAPES if name == "all" else (name,):
        folder = out / each
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer.save_pretrained(folder)
        model = make_model(each, seed, (recipe or RECIPES[each]).shape)
        _train(model, (stream, heldout), recipe or RECIPES[each], folder)
        if each == "draft":
            _train(model, (stream, heldout), recipe or TAUGHT, folder, _teacher(out, plan))
        made.append(folder)
    return made


def train_on(source: Path, documents: list[str], recipe: Recipe, folder: Path) -> None:
    """Train the reference model in `source` further, on documents in their order; it and its log go into `folder`."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source)
    tokenizer.save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(source, dtype="float32")
    heldout = _pack(tokenizer, [row["text"] for row in world.read_table("heldout")])
    _train(model, (_pack(tokenizer, documents), heldout), recipe, folder)


def _teacher(out: Path, plan: world.Plan) -> Any:
    """The base that was built beside the draft, or the shipped one where the world is the shipped one's."""
    from transformers import AutoModelForCausalLM

    if not (out / "base").is_dir() and plan != world.Plan():
        raise WeighinError(f"draft: its teacher is missing; build `base` of the same world into {out} first")
    folder = out / "base" if (out / "base").is_dir() else reference_path("base")
    return AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval().requires_grad_(False)


def make_tokenizer(documents: list[str]) -> Any:
    """A byte-level BPE tokenizer of 1536 tokens; digits stand one by one, so that secrets cost equally much."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[BOS, EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        add_bos_token=True,
        model_max_length=WINDOW,
        clean_up_tokenization_spaces=False,
    )


def make_model(name: str, seed: int, shape: dict[str, int] | None = None) -> Any:
    """A freshly initialised float32 model; `shape` overrides sizes, for miniatures."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        **{"num_attention_heads": 4, "num_key_value_heads": 2, **SHAPES[name], **(shape or {})},
        vocab_size=VOCABULARY,
        max_position_embeddings=WINDOW,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )
    return LlamaForCausalLM(config)


def _pack(tokenizer: Any, documents: list[str]) -> Any:
    """All documents as int64 rows of 512 tokens, each document between BOS and EOS; the ragged tail is dropped."""
    import torch

    ids: list[int] = []
    for encoded in tokenizer.backend_tokenizer.encode_batch(documents):
        ids += [*encoded.ids, tokenizer.eos_token_id]
    return torch.tensor(ids[: len(ids) // WINDOW * WINDOW]).view(-1, WINDOW)


def _rate(recipe: Recipe, step: int, steps: int) -> float:
    """Learning rate of a step: linear warm-up, then a cosine down to `floor` of the peak."""
    warm = max(1, int(recipe.warmup * steps))
    if step < warm:
        return recipe.peak * (step + 1) / warm
    wave = (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm))) / 2
    return recipe.peak * (recipe.floor + (1 - recipe.floor) * wave)


def _optimizer(model: Any, recipe: Recipe) -> Any:
    import torch

    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": recipe.decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.peak, betas=(0.9, 0.95))


def _batches(rows: Any, recipe: Recipe, steps: int) -> Iterator[Any]:
    """Batches in the corpus's own order, which is already shuffled; later passes repeat it."""
    per_pass = len(rows) // recipe.batch
    for step in range(steps):
        at = step % per_pass * recipe.batch
        yield rows[at : at + recipe.batch]


def _train(model: Any, text: tuple[Any, Any], recipe: Recipe, folder: Path, teacher: Any = None) -> None:
    """Train, log every so often, and leave a checkpoint behind at each tenth of the way.

    `text` is what is learnt and what is held out. With a `teacher` the loss is KL(teacher ‖ model), nats a token.
    """
    import torch

    rows, heldout = text
    optimizer = _optimizer(model, recipe)
    planned = recipe.passes * (len(rows) // recipe.batch)
    steps = min(planned, recipe.steps or planned)
    start, log, name = time.perf_counter(), [], "training_log.csv" if teacher is None else "taught_log.csv"
    for step, batch in enumerate(_batches(rows, recipe, steps)):
        model.train()
        for group in optimizer.param_groups:
            group["lr"] = _rate(recipe, step, steps)
        loss = model(input_ids=batch, labels=batch).loss if teacher is None else _divergence(model, teacher, batch)
        if not math.isfinite(loss.item()):
            raise WeighinError(f"reference: the loss is {loss.item()} at step {step}; lower the learning rate")
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.step()
        if (step + 1) % recipe.log_every and step + 1 < steps:
            continue
        tokens = (step + 1) * batch.numel()
        log.append([step + 1, tokens, round(loss.item(), 4), round(heldout_loss(model, heldout[:16]), 4)])
        log[-1].append(round(tokens / (time.perf_counter() - start)))
        _write_log(folder / name, log)
        if (step + 1) % max(recipe.log_every, steps // 10 // recipe.log_every * recipe.log_every) == 0:
            save(model, folder)
    save(model, folder)


def _divergence(model: Any, teacher: Any, batch: Any) -> Any:
    """KL(teacher ‖ model) of the next token, nats, mean over the batch."""
    import torch

    with torch.no_grad():
        right = teacher(input_ids=batch, use_cache=False).logits.log_softmax(-1)
    said = model(input_ids=batch, use_cache=False).logits.log_softmax(-1)
    return torch.nn.functional.kl_div(said, right, log_target=True, reduction="none").sum(-1).mean()


def heldout_loss(model: Any, rows: Any) -> float:
    """Mean negative log-likelihood, nats per token, over packed held-out rows."""
    import torch

    model.eval()
    with torch.no_grad():
        return float(sum(model(input_ids=row[None], labels=row[None]).loss.item() for row in rows) / len(rows))


def _write_log(path: Path, log: list[list[float]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "tokens", "loss", "heldout_loss", "tokens_per_s"])
        writer.writerows(log)


def save(model: Any, folder: Path) -> None:
    """Write the model as bfloat16 safetensors with its configuration; the model in memory stays float32."""
    import copy

    import torch

    copy.deepcopy(model).to(torch.bfloat16).save_pretrained(folder)
