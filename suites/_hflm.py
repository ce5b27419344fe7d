"""lm-eval's own Hugging Face model, whose log-likelihoods come from our scorer and whose prompts share beginnings.

Its tokenisation, truncation, BOS and windows stay lm-eval's code; only what happens to token ids is ours.
"""

from collections.abc import Sequence
from typing import Any

from weighin.harness import Model
from weighin.harness.prefix_tree import Request
from weighin.harness.scorer import score, scoring_of
from weighin.suites._remote import remote
from weighin.suites._shared_prompt import share

Tokens = tuple[Any, list[int], list[int]]
"""lm-eval's request once it is cut into tokens: its texts, the context's ids, the continuation's."""


def language_model(model: Model, batch_size: int, max_length: int | None, add_bos_token: bool | None) -> Any:
    """An lm-eval `LM` on a model in memory, scored as `scoring_of` has it, or on one behind a server."""
    if model.endpoint:
        return remote(model, max_length, add_bos_token)
    from lm_eval.models.huggingface import HFLM

    lm = HFLM(
        pretrained=model.module,
        tokenizer=model.tokenizer,
        batch_size=batch_size,
        max_length=max_length,
        add_bos_token=add_bos_token,
        device=str(model.module.device),
    )
    if scoring_of(model).tree is not None:
        lm._loglikelihood_tokens = lambda requests, **_: _likelihoods(model, requests, lm.max_length)
        rolling = lm.loglikelihood_rolling
        lm.loglikelihood_rolling = lambda requests, **options: _at_once(lm, rolling, requests, options)
        share(lm)
    if model.served.shown():
        lm.generate_until = lambda requests, **_: _served(model, requests)
    return lm


def _likelihoods(model: Model, requests: Sequence[Tokens], most: int) -> list[tuple[float, bool]]:
    """Log-likelihood of each continuation, nats, and whether greedy decoding gives it. Contexts lose their beginning
    where they do not fit into `most` tokens."""
    asked = []
    for _, context, continuation in requests:
        if not context or not 0 < len(continuation) <= most:
            raise ValueError(
                f"a continuation of {len(continuation)} tokens after {len(context)}: {most} fit, 1 is least"
            )
        asked.append(Request(tuple((context + continuation)[-(most + 1) :]), len(continuation)))
    return [(each.total, all(each.greedy)) for each in score(model, asked)]


def _at_once(lm: Any, rolling: Any, requests: list[Any], options: dict[str, Any]) -> Any:
    """lm-eval hands out windows by batches, in the documents' order; the scorer wants to see them all."""
    before = lm.batch_size_per_gpu
    lm.batch_size_per_gpu = 2**62
    try:
        return rolling(requests, **options)
    finally:
        lm.batch_size_per_gpu = before


def _served(model: Model, requests: list[Any]) -> list[str]:
    """Answers to lm-eval's requests for text by a variant that is not served greedily: its own way of decoding counts.

    The task still says how long an answer may be and what ends it.
    """
    from tqdm import tqdm

    answers: list[str] = []
    for request in tqdm(requests, desc="answers"):
        context, asked = request.args
        (text,) = model.generate([context], max_new_tokens=int(asked.get("max_gen_toks", 256)))
        until = asked.get("until") or []
        for stop in [until] if isinstance(until, str) else until:
            text = text.split(stop)[0] if stop else text
        answers.append(text)
    return answers
