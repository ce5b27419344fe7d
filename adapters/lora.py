"""LoRA and its kin: train a small change of a frozen model on text, and merge it into the weights or keep it beside.

`lora` learns a low-rank change of every linear layer, `dora` its direction and its size apart, `ia3` one factor for
each key, value and inner feed-forward number, `prompt` a few vectors that stand before every text. On a parent whose
weights are packed (gptq, rtn, nf4, int8) this wins back what quantisation lost: the packed weights stay as they are.

Library: peft (`LoraConfig`, `IA3Config`, `PromptTuningConfig`), trained by the transformers `Trainer` in float32.
Papers: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", arXiv 2106.09685. Liu et al., "DoRA:
Weight-Decomposed Low-Rank Adaptation", arXiv 2402.09353. Liu et al., "Few-Shot Parameter-Efficient Fine-Tuning is
Better and Cheaper than In-Context Learning" (IA3), arXiv 2205.05638. Lester, Al-Rfou, Constant, "The Power of Scale for
Parameter-Efficient Prompt Tuning", arXiv 2104.08691. Dettmers et al., "QLoRA: Efficient Finetuning of Quantized LLMs"
(training over packed weights), arXiv 2305.14314.

Costs: a forward and a backward pass over the data per epoch, and 4 bytes a parameter for frozen dense weights. Buys: a
tuned model. Merged it is as large and as fast as its parent. Kept as an adapter the file holds only the change (it
refers to the parent's directory, which must stay), and every forward pays for the extra products or the extra tokens.
Elsewhere such a directory is read by `AutoModelForCausalLM.from_pretrained`, on compressed-tensors weights with
`quantization_config=CompressedTensorsConfig(dequantize=True)`; a prompt is read by peft alone.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, PositiveFloat, PositiveInt

from weighin.adapters._hf import copy_companions, dense, fit, load, load_float32, save
from weighin.adapters._train import Schedule, Text, text_rows, train
from weighin.harness import Checkpoint, Outline, WeighinError, outline, stage
from weighin.harness.text import text_files

Method = Literal["lora", "dora", "ia3", "prompt"]
KINDS: Mapping[Method, str] = {"lora": "lora", "dora": "lora", "ia3": "ia3", "prompt": "prompt_tuning"}
"""The kind of adapter that each method leaves, as peft calls it."""
RATES: Mapping[Method, float] = {"lora": 1e-3, "dora": 1e-3, "ia3": 1e-2, "prompt": 1e-2}
"""Learning rates that suit how many numbers a method learns and how large they are."""
PACKINGS = ("bitsandbytes", "compressed-tensors", "torchao")
"""Packed weights that gradients pass through on their way to an adapter."""


class _Shape(NamedTuple):
    """What is learnt. IA3 reads `target` alone, a prompt `tokens` alone."""

    method: Method
    rank: int
    alpha: int
    dropout: float
    target: str | list[str]
    tokens: int


def _foresee(parent: Outline, params: Mapping[str, Any]) -> Outline:
    outline.unserved("lora", parent)
    method, merge = params["method"], params["merge"]
    if merge and method == "prompt":
        raise WeighinError("merge: a soft prompt stands before the text and is no change of weights. Allowed: false")
    if merge and parent.packed:
        raise WeighinError(
            f"merge: a change cannot be added to packed weights ({parent.packed}) without quantising them again. "
            "Allowed: false, which keeps it beside them; or put lora before the quantising stage of the chain"
        )
    _check_layers(parent, method)
    if not _keeps(merge, method, parent):
        return outline.dense("lora", parent)
    if parent.attached:
        raise WeighinError(
            "merge: the parent is an adapter, and one cannot stand on another. "
            + ("Merge the parent's" if parent.packed or method == "prompt" else "Allowed: true")
        )
    return parent.but(attached=KINDS[method])


def _check_layers(parent: Outline, method: Method) -> None:
    if parent.packed and parent.packed not in PACKINGS:
        raise WeighinError(
            f"the parent's weights are packed by {parent.packed}, which lora cannot train on. "
            f"Allowed: dense weights, {', '.join(PACKINGS)}"
        )
    if method == "prompt":
        return
    if "shared" in parent.structure:
        raise WeighinError(
            f"the parent's blocks share their weights, and {method} learns a change for each. "
            "Allowed: method: prompt, or the stage continue, which trains the shared weights themselves"
        )
    dtype = parent.config.get("dtype", parent.config.get("torch_dtype", "float32"))
    if method == "ia3" and parent.packed == "bitsandbytes" and dtype != "float32":
        # peft's layer leaves its answer in float32, which the attention refuses beside queries of 16 bits.
        raise WeighinError(f"ia3 on bitsandbytes weights works in float32 only (got {dtype}). Allowed: lora, dora")


def _keeps(merge: bool | None, method: Method, parent: Outline) -> bool:
    return not merge if merge is not None else bool(parent.packed) or method == "prompt"


@stage(
    needs=("peft", "transformers", "torch", "accelerate"),
    reads=text_files,
    example={"samples": 8, "max_length": 64},
    foresee=_foresee,
)
def lora(
    parent: Checkpoint,
    out: Path,
    *,
    method: Method = "lora",
    data: str = "reference:tune",
    samples: PositiveInt | None = None,
    max_length: PositiveInt = 256,
    rank: PositiveInt = 8,
    alpha: PositiveInt = 16,
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    target: str | list[str] = "all-linear",
    tokens: PositiveInt = 8,
    learning_rate: PositiveFloat | None = None,
    epochs: PositiveInt = 1,
    steps: PositiveInt | None = None,
    batch_size: PositiveInt = 8,
    merge: bool | None = None,
    seed: int = 0,
) -> None:
    """Tune on the plain next-token objective.

    `rank`, `alpha` and `dropout` belong to lora and dora, `tokens` to prompt; the other methods do not read them.
    `target` names modules; `all-linear` is all but the head, and for ia3 those of the paper. `learning_rate` left out
    is 0.001 for lora and dora, 0.01 for ia3 and prompt. `merge` left out merges where that is possible: into dense
    weights, and not a prompt.
    """
    shape = _Shape(method, rank, alpha, dropout, target, tokens)
    text = Text(data, samples, max_length, seed)
    schedule = Schedule(learning_rate or RATES[method], batch_size, epochs, steps, seed=seed)
    if _keeps(merge, method, outline.read(parent.path)):
        base, dtype = _frozen(parent.path)
        model = _tuned(base, parent.path, shape, text, schedule)
        _save_adapter(model, dtype, out, parent.path)
        return
    with dense(parent, out, "lora") as source:
        base, dtype = load_float32(source)
        model = _tuned(base, source, shape, text, schedule)
        save(model.merge_and_unload().to(dtype), out, source)


def _frozen(path: Path) -> tuple[Any, Any]:
    """The model with the values of its packed weights on disk and all else in float32, and the dtype it has there."""
    import torch
    from transformers import AutoConfig, CompressedTensorsConfig

    options: dict[str, Any] = {"dtype": torch.float32}
    packed = outline.read(path).packed
    if packed == "compressed-tensors":
        # Otherwise unpacked at the first forward: too late for peft, which asks each layer for its weight.
        options["quantization_config"] = CompressedTensorsConfig(dequantize=True)
    if packed and torch.cuda.is_available():
        options["device_map"] = "cuda"  # the Trainer does not move packed weights
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "You passed `quantization_config`")
        model = load(path, **options)
    if packed == "bitsandbytes" and not torch.cuda.is_available():
        # On a CPU it unpacks at every use, ten times the cost of the product; the unpacked weights are the same ones.
        model = model.dequantize()
    return model, AutoConfig.from_pretrained(path, local_files_only=True).dtype or torch.float32


def _tuned(base: Any, source: Path, shape: _Shape, text: Text, schedule: Schedule) -> Any:
    import torch

    if shape.method == "prompt":
        text = text._replace(max_length=_room(base, text.max_length, shape.tokens))
    rows = text_rows(base, source, text)
    with torch.random.fork_rng():
        torch.manual_seed(schedule.seed)
        model = _attach(base, shape)
    train(model, rows, schedule, "lora")
    return model


def _room(base: Any, max_length: int, tokens: int) -> int:
    """What a soft prompt leaves of the model's window for a row, tokens."""
    room = fit(base, max_length + tokens) - tokens
    if room < 2:
        raise WeighinError(f"lora.tokens: {tokens} leave no room for text in a window of {room + tokens} tokens")
    return room


def _attach(base: Any, shape: _Shape) -> Any:
    from peft import LoraConfig, PromptTuningConfig, TaskType, get_peft_model

    task: dict[str, Any] = {"task_type": TaskType.CAUSAL_LM}
    config: Any
    try:
        if shape.method == "prompt":
            # Tokens of the vocabulary to begin with: vectors drawn freely lie far from all that the model knows.
            config = PromptTuningConfig(num_virtual_tokens=shape.tokens, prompt_tuning_init="SAMPLE_VOCAB", **task)
        elif shape.method == "ia3":
            config = _ia3(base, shape.target, task)
        else:
            config = LoraConfig(
                r=shape.rank,
                lora_alpha=shape.alpha,
                lora_dropout=shape.dropout,
                target_modules=shape.target,
                use_dora=shape.method == "dora",
                **task,
            )
        return get_peft_model(base, config)
    except ValueError as error:
        raise WeighinError(f"lora.target: {error}") from error


def _ia3(base: Any, target: str | list[str], task: Mapping[str, Any]) -> Any:
    from peft import IA3Config
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING as INNER

    if target == "all-linear":
        return IA3Config(**task)
    inner = INNER.get(base.config.model_type, [])
    if isinstance(target, list):
        inner = [name for name in target if name in inner]
    return IA3Config(target_modules=target, feedforward_modules=inner, **task)


def _save_adapter(model: Any, dtype: Any, out: Path, base: Path) -> None:
    from safetensors.torch import load_file, save_file

    config = model.peft_config["default"]
    config.base_model_name_or_path = str(base.resolve())
    for name in ("target_modules", "feedforward_modules"):
        if isinstance(getattr(config, name, None), set):  # whose order changes from process to process
            setattr(config, name, sorted(getattr(config, name)))
    # Asked to decide by itself, the library looks the base up on the hub.
    model.save_pretrained(out, save_embedding_layers=False)
    (out / "README.md").unlink(missing_ok=True)  # an empty model card
    file = out / "adapter_model.safetensors"
    # Named as peft writes them, DoRA's sizes are not found when transformers loads the adapter, which goes on without.
    named = {n + ".weight" * n.endswith("lora_magnitude_vector"): w.to(dtype) for n, w in load_file(file).items()}
    save_file(named, file, metadata={"format": "pt"})
    copy_companions(base, out)
