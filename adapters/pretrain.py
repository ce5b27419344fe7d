"""Pretrain: a model from scratch, with the parent's tokenizer and architecture, in its sizes or in others.

What a small model owes to its parent, and what it would have learnt alone, shows only beside this one: as it stands,
`pretrain` makes a freshly drawn model of exactly the parent's shape. `share` makes that many consecutive blocks compute
with one block's weights: as deep, but with fewer weights.

Library: the transformers model of the parent's configuration, trained by its `Trainer` (AdamW, warm-up, cosine,
float32); shared blocks are this project's own.
Papers: Liu et al., "MobileLLM: Optimizing Sub-billion Parameter Language Models for On-Device Use Cases" (depth over
width, immediate block-wise sharing), arXiv 2402.14905. Ainslie et al., "GQA: Training Generalized Multi-Query
Transformer Models from Multi-Head Checkpoints" (`kv_heads`), arXiv 2305.13245. Shazeer, "Fast Transformer Decoding: One
Write-Head is All You Need" (`kv_heads: 1`), arXiv 1911.02150. Press, Wolf, "Using the Output Embedding to Improve
Language Models" (`tie`), arXiv 1608.05859.

Costs: training from nothing: a model worth having takes some twenty tokens of text a parameter (Hoffmann et al., arXiv
2203.15556), far more than the reference text has. Buys: whatever shape one likes.
"""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PositiveFloat, PositiveInt

from weighin.adapters._hf import is_adapter, save
from weighin.adapters._train import Schedule, Text, packed_rows, train
from weighin.harness import Checkpoint, Outline, WeighinError, outline, stage, structure
from weighin.harness.text import text_files

SIZES = {
    "layers": "num_hidden_layers",
    "hidden": "hidden_size",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "ffn": "intermediate_size",
    "tie": "tie_word_embeddings",
}
"""What config.json calls each parameter."""
BY_LAYER = ("layer_types", "no_rope_layers")
"""Fields of config.json with an entry for each layer."""


def _foresee(parent: Outline, params: Mapping[str, Any]) -> Outline:
    outline.unserved("pretrain", parent)
    changes = _changes(parent.config, params)
    _check_share(changes.get("num_hidden_layers", parent.config.get("num_hidden_layers")), params["share"])
    kept = {name: value for name, value in parent.config.items() if name != "quantization_config"}
    shared = "shared" if params["share"] > 1 else ""
    return Outline({**kept, **changes}, parent.vocabulary, structure=shared)


@stage(
    needs=("transformers", "torch", "accelerate"),
    reads=text_files,
    example={"samples": 16, "max_length": 64, "steps": 2, "hidden": 64},
    foresee=_foresee,
)
def pretrain(
    parent: Checkpoint,
    out: Path,
    *,
    layers: PositiveInt | None = None,
    hidden: PositiveInt | None = None,
    heads: PositiveInt | None = None,
    kv_heads: PositiveInt | None = None,
    ffn: PositiveInt | None = None,
    tie: bool | None = None,
    share: PositiveInt = 1,
    data: str = "reference:calibration_text",
    samples: PositiveInt | None = None,
    max_length: Annotated[int, Field(gt=1)] = 256,
    learning_rate: PositiveFloat = 2e-3,
    epochs: PositiveInt = 20,
    steps: PositiveInt | None = None,
    batch_size: PositiveInt = 8,
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05,
    seed: int = 0,
) -> None:
    """Train from freshly drawn weights. A size left out is the parent's own; none of its weights are read.

    Left out while `heads` is given, `kv_heads` follows it where the parent has as many of the one as of the other. The
    size of a head is `hidden` over `heads` where either is given.
    """
    sizes = {"layers": layers, "hidden": hidden, "heads": heads, "kv_heads": kv_heads, "ffn": ffn, "tie": tie}
    config, dtype = _config(parent.path, sizes)
    model = _drawn(config, share, seed)
    rows = packed_rows(model, parent.path, Text(data, samples, max_length, seed))
    schedule = Schedule(learning_rate, batch_size, epochs, steps, warmup=warmup, decay=0.1, curve="cosine", seed=seed)
    train(model, rows, schedule, "pretrain")
    save(model.to(dtype), out, parent.path)


def _config(path: Path, sizes: Mapping[str, Any]) -> tuple[Any, Any]:
    """The parent's configuration in the new sizes, and the dtype its weights have."""
    import torch
    from transformers import AutoConfig

    if is_adapter(path):
        path = Path(json.loads((path / outline.ADAPTER).read_text(encoding="utf-8"))["base_model_name_or_path"])
    config: Any = copy.deepcopy(AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False))
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    changes = _changes({**config.to_dict(), **_standard(config)}, sizes)
    for name, value in changes.items():
        if not hasattr(config, name):
            given = next((short for short, long in SIZES.items() if long == name), name)
            raise WeighinError(f"{given}: {type(config).__name__} has no {name}. Allowed: to leave it out")
        setattr(config, name, value)
    return config, config.dtype or torch.float32


def _standard(config: Any) -> dict[str, Any]:
    """The sizes under their usual names, which an old configuration class keeps under names of its own."""
    return {name: getattr(config, name) for name in SIZES.values() if hasattr(config, name)}


def _drawn(config: Any, share: int, seed: int) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)
    if share == 1:
        return model
    blocks = range(config.num_hidden_layers)
    return structure.apply(model, structure.Structure(shared=tuple(i - i % share for i in blocks)))


def _changes(config: Mapping[str, Any], sizes: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of config.json that the new sizes change. Raises WeighinError where they do not go together."""
    given = {name: sizes[short] for short, name in SIZES.items() if sizes[short] is not None}
    old, groups = config.get("num_attention_heads"), config.get("num_key_value_heads")
    if "num_attention_heads" in given and "num_key_value_heads" not in given and groups and groups == old:
        given["num_key_value_heads"] = given["num_attention_heads"]
    new = {**config, **given}
    heads, groups, hidden = (new.get(SIZES[short]) for short in ("heads", "kv_heads", "hidden"))
    if heads and groups and heads % groups:
        raise WeighinError(
            f"kv_heads: {groups} do not divide {heads} heads evenly. Allowed: {_listed(_divisors(heads))}"
        )
    if hidden and heads and {"hidden_size", "num_attention_heads"} & given.keys():
        _check_head(hidden, heads)
        if config.get("head_dim"):
            given["head_dim"] = hidden // heads
    if "num_hidden_layers" in given:
        pattern = {name: config[name] for name in BY_LAYER if config.get(name)}
        count = given["num_hidden_layers"]
        given |= {name: [kinds[i % len(kinds)] for i in range(count)] for name, kinds in pattern.items()}
    return given


def _check_head(hidden: int, heads: int) -> None:
    # Rotary positions turn the numbers of a head in pairs.
    allowed = [n for n in _divisors(hidden) if hidden // n % 2 == 0]
    if heads not in allowed:
        raise WeighinError(
            f"heads: {heads} do not divide a hidden size of {hidden} into heads of an even size. "
            f"Allowed: {_listed(allowed)}"
        )


def _check_share(layers: int | None, share: int) -> None:
    if layers and layers % share:
        raise WeighinError(f"share: {share} does not divide {layers} layers. Allowed: {_listed(_divisors(layers))}")


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers)) or "none: choose another size"
