"""Decoding: how tokens are chosen and what stands around the prompt. Sampling, beams, few-shot, self-consistency.

Library: transformers `generate`.
Papers: Holtzman et al., "The Curious Case of Neural Text Degeneration" (top-p), arXiv 1904.09751. Brown et al.,
"Language Models are Few-Shot Learners", arXiv 2005.14165. Wei et al., "Chain-of-Thought Prompting Elicits Reasoning in
Large Language Models", arXiv 2201.11903. Wang et al., "Self-Consistency Improves Chain of Thought Reasoning in
Language Models", arXiv 2203.11171.

Costs: `beams` and `votes` multiply the work of an answer, text around the prompt lengthens it. Buys: other answers from
the same weights, better ones where the task suits. Figures of given text (likelihood of choices, perplexity, KL) are
the parent's: nothing is decoded for them.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PositiveFloat, PositiveInt

from weighin.adapters._serve import serve
from weighin.harness import Checkpoint, Outline, WeighinError, stage
from weighin.harness.serving import Serving

THINK = "\nLet's think step by step.\n"
"""The trigger of zero-shot chain of thought (Kojima et al., arXiv 2205.11916)."""


def _foresee(parent: Outline, params: Mapping[str, Any]) -> Outline:
    drawn = any(params[name] is not None for name in ("temperature", "top_p", "top_k"))
    if params["beams"] > 1 and params["votes"] > 1:
        raise WeighinError("votes: a vote is over samples, and beams are not drawn. Set one of beams and votes")
    if params["votes"] > 1 and not drawn:
        raise WeighinError("votes: equal completions cannot vote. Give temperature, top_p or top_k to draw them")
    if params["answer"] and params["votes"] == 1:
        raise WeighinError("answer: only votes look for it. Set votes above 1 or leave it out")
    try:
        re.compile(params["answer"])
    except re.error as error:
        raise WeighinError(f"answer: is no regular expression ({error})") from None
    if not any((drawn, params["beams"] > 1, params["shots"], params["think"])):
        raise WeighinError("nothing is changed. Set temperature, top_p, top_k, beams, votes, shots or think")
    if parent.served == "speculate" and (params["beams"] > 1 or params["votes"] > 1):
        raise WeighinError("the parent drafts one sequence at a time: it can neither search beams nor vote")
    return parent


@stage(
    needs=("transformers", "torch"),
    changes="serving",
    foresee=_foresee,
    example={"temperature": 0.8, "votes": 2},
)
def decode(
    parent: Checkpoint,
    out: Path,
    *,
    temperature: PositiveFloat | None = None,
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None,
    top_k: PositiveInt | None = None,
    beams: PositiveInt = 1,
    votes: PositiveInt = 1,
    answer: str = "",
    shots: list[str] = [],  # noqa: B006  (a schema's default, never changed)
    think: bool = False,
    seed: int = 0,
) -> None:
    """Serve the parent's weights so. `shots` are solved examples, put before each prompt with a blank line between.

    `answer` is a regular expression whose last match in a completion is what `votes` are counted on.
    """
    drawn = {"temperature": temperature, "top_p": top_p, "top_k": top_k}
    options: dict[str, Any] = {name: value for name, value in drawn.items() if value is not None}
    if options:
        # Unset, the library's own top_k of 50 would cut every distribution.
        options = {"do_sample": True, "top_k": 0, **options}
    if beams > 1:
        options["num_beams"] = beams
    before = "".join(f"{shot}\n\n" for shot in shots)
    new = Serving(options=options, before=before, after=THINK if think else "", votes=votes, answer=answer, seed=seed)
    serve(parent, out, new)
