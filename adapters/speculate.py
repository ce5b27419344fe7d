"""Speculative decoding: a cheap drafter proposes a block of tokens, the model checks the block in one pass.

Library: transformers' assisted generation. The drafter is a small model of the same vocabulary, the prompt itself
(`lookup`: what followed the last few tokens when they stood there before), or the model's own first layers
(`early_exit`).
Papers: Leviathan, Kalman, Matias, "Fast Inference from Transformers via Speculative Decoding", arXiv 2211.17192. Chen
et al., "Accelerating Large Language Model Decoding with Speculative Sampling", arXiv 2302.01318. Elhoushi et al.,
"LayerSkip", arXiv 2404.16710 (early exit).

Costs: the draft's memory, and its time whenever its tokens are rejected. Buys: fewer passes of the large model for the
same text, one request at a time: it is slower where the draft is nearly as slow as the model or guesses badly. The
weights stay as they are; greedy text stays the same but for numeric ties.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import PositiveInt

from weighin.adapters._serve import serve
from weighin.harness import Checkpoint, Outline, WeighinError, outline, stage
from weighin.harness.checkpoints import link
from weighin.harness.serving import DRAFT, Serving

Method = Literal["draft", "lookup", "early_exit"]


def _foresee(parent: Outline, params: Mapping[str, Any]) -> Outline:
    draft, layer = params["draft"], params["layer"]
    if params["method"] != "draft" and draft is not None:
        raise WeighinError(f"draft: {params['method']} drafts without a second model; leave draft out or use draft")
    if params["method"] == "draft":
        if draft is None:
            raise WeighinError("draft: name the variant or the model that drafts, such as reference:draft")
        outline.same_vocabulary("speculate", parent, draft, "the draft")
        if draft.served:
            raise WeighinError("draft: a draft is used as a plain model; name the variant before its serving stage")
    layers = parent.config.get("num_hidden_layers")
    if params["method"] == "early_exit" and layers is not None and layer >= layers:
        raise WeighinError(f"layer: the model has {layers} layers; an early exit is after 1 to {layers - 1}")
    if parent.attached == "prompt_tuning":
        raise WeighinError("a soft prompt stands before the model's input, and drafts are not checked behind it")
    return parent


@stage(
    needs=("transformers", "torch"),
    changes="serving",
    foresee=_foresee,
    example={"method": "lookup", "block": 3},
)
def speculate(
    parent: Checkpoint,
    out: Path,
    *,
    method: Method = "draft",
    draft: Checkpoint | None = None,
    block: PositiveInt = 4,
    layer: PositiveInt = 1,
    ngram: PositiveInt = 2,
) -> None:
    """Draft `block` tokens at a time. `layer` is where an early exit leaves; `ngram` is the longest match looked up."""
    options: dict[str, Any] = {}
    if method == "lookup":
        options = {"prompt_lookup_num_tokens": block, "max_matching_ngram_size": ngram}
    elif method == "early_exit":
        options = {"assistant_early_exit": layer}
    serve(parent, out, Serving(options=options, block=block, draft=draft is not None))
    if draft is not None:
        (out / DRAFT).mkdir()
        link(draft.path, out / DRAFT)
