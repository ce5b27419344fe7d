"""Merging: one model out of the weights of several that were tuned from the same one.

Library: mergekit (`run_merge`).
Papers: Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy without
increasing inference time" (linear), arXiv 2203.05482. Shoemake, "Animating rotation with quaternion curves" (slerp),
SIGGRAPH 1985. Yadav et al., "TIES-Merging: Resolving Interference When Merging Models", arXiv 2306.01708. Yu et al.,
"Language Models are Super Mario: Absorbing Abilities from Homologous Models as a Free Lunch" (DARE), arXiv 2311.03099.

Costs: seconds, no data, and the memory of the models' largest tensors. Buys: one model, as large and as fast as each of
them, with something of what all have learnt. Models that share no ancestor give noise.
"""

import json
import math
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from weighin.adapters._hf import dense, load, save
from weighin.harness import Checkpoint, Outline, WeighinError, outline, stage
from weighin.harness.structure import pretrained

ALIKE = (
    "model_type",
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "hidden_act",
    "attention_bias",
    "mlp_bias",
    "tie_word_embeddings",
    "layer_types",
    "rope_theta",
    "rope_parameters",
)
"""What config.json must say alike of all models: the shapes, and what the weights were trained to be used for."""
FITS = {"weights": ("linear", "ties", "dare"), "t": ("slerp",), "density": ("ties", "dare"), "base": ("ties", "dare")}
"""The methods that read a parameter."""


def _foresee(parent: Outline, params: Mapping[str, Any]) -> Outline:
    found = outline.plain("merge", parent)
    method, others, base = params["method"], params["with"], params["base"]
    for name, methods in FITS.items():
        if params[name] is not None and method not in methods:
            raise WeighinError(f"merge.{name}: {method} does not read it. Leave it out, or use {' or '.join(methods)}")
    if method in FITS["base"] and base is None:
        raise WeighinError(
            f"merge.base: {method} merges what each model has learnt since a common ancestor, and needs that ancestor"
        )
    if method == "slerp" and len(others) != 1:
        raise WeighinError(f"merge.with: slerp goes from one model to one other (got {len(others)} others)")
    _check_weights(params["weights"], len(others) + 1, params["normalize"])
    named = {f"with[{i}]": other for i, other in enumerate(others)} | ({} if base is None else {"base": base})
    for name, other in named.items():
        _check_like(name, found, other)
    return found


@stage(
    needs=("mergekit", "transformers", "torch"),
    example={"with": ["base"], "weights": [1.0, 0.01], "normalize": False},
    foresee=_foresee,
)
def merge(
    parent: Checkpoint,
    out: Path,
    *,
    with_: Annotated[list[Checkpoint], Field(min_length=1)],
    method: Literal["linear", "slerp", "ties", "dare"] = "linear",
    base: Checkpoint | None = None,
    weights: list[float] | None = None,
    normalize: bool = True,
    t: Annotated[float, Field(ge=0, le=1)] | None = None,
    density: Annotated[float, Field(gt=0, le=1)] | None = None,
    seed: int = 0,
) -> None:
    """Merge the parent with the models of `with`, tensor by tensor, in float32; its config and tokenizer stay.

    `weights` are the parent's and then the others' (each 1 if left out); `normalize` divides by their sum.
    linear: the weighted mean. slerp: along the great circle from the parent (`t` 0) to the other (`t` 1; 0.5 if left
    out). ties and dare take each model's difference from `base`, the ancestor of all of them. ties keeps the `density`
    of each tensor's largest numbers (0.5 if left out), lets the weighted sum elect a sign and takes the mean of those
    that have it. dare keeps each number with probability `density`, drawn by `seed`, and divides it by that.
    """
    with ExitStack() as stack:
        folders = [stack.enter_context(dense(each, out, "merge")) for each in (parent, *with_)]
        ancestor = stack.enter_context(dense(base, out, "merge")) if base else None
        recipe = _recipe(method, weights or [1.0] * len(folders), normalize, t, density)
        merged = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=out, prefix=".merging-")))
        _run(recipe, folders, ancestor, merged, seed)
        (merged / "config.json").write_bytes((folders[0] / "config.json").read_bytes())
        save(_complete(merged, load(folders[0]).dtype), out, folders[0])


def _complete(merged: Path, dtype: Any) -> Any:
    """The merged model; WeighinError where the library left a weight out, made one up, or made one of no number."""
    model, told = pretrained(merged, dtype=dtype, local_files_only=True, use_safetensors=True, output_loading_info=True)
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if told[what]:
            some = ", ".join(map(str, sorted(told[what])[:3]))
            raise WeighinError(f"merge: mergekit does not know this architecture well ({what}: {some} ...)")
    bad = [name for name, weight in model.named_parameters() if not weight.isfinite().all()]
    if bad:
        raise WeighinError(f"merge: weights that are not finite, in {', '.join(bad[:3])}. Check the models")
    return model


def _recipe(
    method: str, weights: list[float], normalize: bool, t: float | None, density: float | None
) -> tuple[str, list[dict[str, float]], dict[str, Any]]:
    """The library's name of a method, its parameters for each model, and those of the whole."""
    if method == "slerp":
        return "slerp", [{} for _ in weights], {"t": 0.5 if t is None else t}
    if method == "linear":
        return "linear", [{"weight": weight} for weight in weights], {"normalize": normalize}
    kept = 0.5 if density is None else density
    if method == "ties":
        return "ties", [{"weight": weight, "density": kept} for weight in weights], {"normalize": normalize}
    # The library makes up for what was dropped by the norm of what is left. The paper divides by the probability, which
    # a weight can do as well.
    whole = sum(weights) if normalize else 1.0
    shares = [{"weight": weight / whole / kept, "density": kept} for weight in weights]
    return "dare_linear", shares, {"rescale": False, "normalize": False}


def _run(
    recipe: tuple[str, list[dict[str, float]], dict[str, Any]],
    folders: list[Path],
    ancestor: Path | None,
    merged: Path,
    seed: int,
) -> None:
    import torch
    from mergekit.common import ModelPath, ModelReference
    from mergekit.config import InputModelDefinition, MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    method, each, whole = recipe
    # The ancestor last; slerp starts from the first.
    *models, start = [
        ModelReference(model=ModelPath(path=str(_unnamed(folder, merged / f".model-{i}"))))
        for i, folder in enumerate([*folders, ancestor or folders[0]])
    ]
    if method == "slerp":
        start = models[0]
    config = MergeConfiguration(
        merge_method=method,
        models=[InputModelDefinition(model=m, parameters=p) for m, p in zip(models, each, strict=True)],
        parameters=whole,
        base_model=None if method == "linear" else start,
        dtype="float32",
    )
    options = MergeOptions(copy_tokenizer=False, write_model_card=False, quiet=True)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            run_merge(config, str(merged), options)
        except (RuntimeError, ValueError, TypeError) as error:
            raise WeighinError(f"merge: mergekit cannot merge these models ({error})") from error


def _unnamed(folder: Path, view: Path) -> Path:
    """A view of a model's directory, under an architecture that the library has never heard of.

    Its tables of those it knows leave out weights (the biases of a Llama) and ask for others that files of today lack.
    Without a table it goes by the file's own names. And it refuses to read one directory twice, so each has its view.
    """
    view.mkdir()
    for file in folder.resolve().iterdir():
        if file.is_file() and file.name != "config.json":
            (view / file.name).symlink_to(file)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (view / "config.json").write_text(json.dumps({**config, "architectures": ["UnnamedForCausalLM"]}), encoding="utf-8")
    return view


def _check_weights(weights: list[float] | None, count: int, normalize: bool) -> None:
    if weights is None:
        return
    if len(weights) != count:
        raise WeighinError(f"merge.weights: one for the parent and one for each of with, {count} (got {len(weights)})")
    if not all(map(math.isfinite, weights)) or not any(weights) or (normalize and not sum(weights)):
        raise WeighinError(f"merge.weights: finite numbers whose sum is not 0 (got {weights})")


def _check_like(name: str, ours: Outline, theirs: Outline) -> None:
    """Raises WeighinError where a model's tensors are not those of the parent, one by one."""
    if theirs.packed or theirs.structure or theirs.served or theirs.attached == "prompt_tuning":
        why = theirs.packed or theirs.structure or theirs.served or "a soft prompt"
        raise WeighinError(
            f"merge.{name}: merging needs dense weights of the plain architecture (this model has {why})"
        )
    for field in ALIKE:
        mine, other = ours.config.get(field), theirs.config.get(field)
        if mine is not None and other is not None and mine != other:
            raise WeighinError(f"merge.{name}: {field} is {other}, the parent's {mine}: only like models can be merged")
    if ours.vocabulary and theirs.vocabulary and ours.vocabulary != theirs.vocabulary:
        raise WeighinError(f"merge.{name}: it has another vocabulary than the parent, so the embeddings do not match")
