"""Speculative decoding weighed against plain decoding of the same weights: acceptance, block efficiency, speed-up.

Each prompt is continued twice, plainly and the way the variant is served, in a random order, so that what else the
machine does meets both alike. Greedy on both sides: the texts must be the same, token for token. Where they part, the
two tokens' logits must lie within the noise of the arithmetic (the largest difference between logits of this prompt
computed in one pass and token by token, on each side); such a parting is a tie and counted, any other is a fault.

With `draws`, the first token after the first prompt is drawn so often at temperature 1, the way the variant is served,
and its counts are tested against the model's own probabilities (Pearson's chi-square): a right sampler gives a p below
0.05 once in twenty times. 20,000 draws see a temperature of 1.1; a fault in one token of a hundred shows in the texts.

Acceptance is the share of drafted tokens that the model would have chosen; block efficiency is tokens made per pass of
the model (Leviathan et al., arXiv 2211.17192, section 3). A variant that drafts nothing abstains.
"""

import random
import time
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Annotated, Any

from pydantic import Field

from weighin.harness import Abstain, Metric, Model, Sample, suite
from weighin.harness.model import resident_bytes
from weighin.harness.serving import counted
from weighin.harness.text import documents, text_files
from weighin.suites._lossless import chi_square

ACCEPTANCE = Metric("acceptance", unit="1", better="higher")
EFFICIENCY = Metric("block_efficiency", unit="token/pass", better="higher")
SAME = Metric("same_text", unit="1", better="higher")
TIES = Metric("ties", unit="1", better="none")
SPEEDUP = Metric("speedup", unit="1", better="higher", reduce="median", runtime=True)
SAMPLING = Metric("sampling_p", unit="1", better="none")
DRAFT = Metric("draft_weights", unit="B", better="lower", runtime=True)
CHOICE = ("do_sample", "temperature", "top_p", "top_k", "num_return_sequences")
"""What chooses tokens otherwise than greedily, and is left out here."""


@suite(
    ACCEPTANCE,
    EFFICIENCY,
    SAME,
    TIES,
    SPEEDUP,
    DRAFT,
    needs=("torch", "transformers", "scipy"),
    reads=text_files,
    example={"samples": 2, "prompt_tokens": 8, "new_tokens": 8, "warmup": 0},
)
def speculation(
    model: Model,
    *,
    data: str = "reference:heldout",
    samples: Annotated[int, Field(gt=0)] = 24,
    prompt_tokens: Annotated[int, Field(gt=0)] = 32,
    new_tokens: Annotated[int, Field(gt=1)] = 64,
    warmup: Annotated[int, Field(ge=0)] = 2,
    draws: Annotated[int, Field(ge=0)] = 0,
    seed: int = 0,
) -> Iterator[Sample]:
    """Yield the samples of each prompt, and one of the draft's memory."""
    from tqdm import tqdm

    if not model.served.assisted:
        raise Abstain("nothing drafts: this variant is not served by speculative decoding")
    if model.window < prompt_tokens + new_tokens:
        raise Abstain(f"{prompt_tokens} + {new_tokens} tokens do not fit the model's window of {model.window}")
    served = {name: value for name, value in model.serving.items() if name not in CHOICE}
    prompts = {}
    for text in documents(data, samples=None, seed=seed):
        ids = model.encode(text)[:prompt_tokens]
        if len(ids) == prompt_tokens:
            prompts[sha256(str(ids).encode()).hexdigest()[:32]] = ids
    if not prompts:
        raise Abstain(f"no document of {data} has {prompt_tokens} tokens")
    order = random.Random(seed)
    chosen = list(prompts.items())[:samples]
    for number, (item, ids) in enumerate(tqdm([*chosen[:1] * warmup, *chosen], desc="prompts")):
        found = list(_prompt(model, item, ids, (new_tokens, served, order.random() < 0.5)))
        if number >= warmup:
            yield from found
    if draws:
        yield _sampled(model, chosen[0], served, draws, seed)
    size = resident_bytes(model.draft) if model.draft is not None else 0
    yield Sample("draft", float(size), DRAFT)


def _prompt(model: Model, item: str, ids: list[int], how: tuple[int, Mapping[str, Any], bool]) -> Iterator[Sample]:
    new_tokens, served, plain_first = how
    runs: dict[bool, tuple[list[int], float]] = {}
    with counted(model.module) as blocks:
        for plain in (True, False) if plain_first else (False, True):
            runs[plain] = _continue(model, ids, new_tokens, {} if plain else served)
    (right, slow), (text, fast) = runs[True], runs[False]
    drafted, accepted = sum(b.drafted for b in blocks), sum(b.accepted for b in blocks)
    if drafted:
        yield Sample(item, accepted / drafted, ACCEPTANCE, weight=drafted)
    else:
        yield Sample(item, None, ACCEPTANCE, reason="nothing was drafted for this prompt")
    yield Sample(item, len(text) / len(blocks), EFFICIENCY, weight=len(blocks))
    gap, noise = _parting(model, ids, right, text)
    tie = right != text and gap <= noise
    detail = {"gap": gap, "noise": noise} if right != text else {}
    yield Sample(item, float(right == text or tie), SAME, detail=detail)
    yield Sample(item, float(tie), TIES)
    yield Sample(item, slow / fast, SPEEDUP, detail={"plain_s": slow, "served_s": fast, "tokens": len(text)})


def _sampled(model: Model, prompt: tuple[str, list[int]], served: Mapping[str, Any], draws: int, seed: int) -> Sample:
    """The p-value of so many first tokens, one sample."""
    import torch
    from tqdm import tqdm

    item, ids = prompt
    row = torch.tensor([ids], device=model.module.device)
    # Only a second token makes the library draft and check the first.
    options = {**served, "do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "max_new_tokens": 2}
    options["pad_token_id"] = model.tokenizer.pad_token_id
    with torch.inference_mode(), torch.random.fork_rng():
        torch.manual_seed(seed)
        right = model.module(input_ids=row).logits[0, -1].float().softmax(-1).tolist()
        counts = [0] * len(right)
        for _ in tqdm(range(draws), desc="draws"):
            made = model.module.generate(input_ids=row, attention_mask=torch.ones_like(row), **options)
            counts[int(made[0, len(ids)])] += 1
    try:
        return Sample(item, chi_square(counts, right), SAMPLING, detail={"draws": draws})
    except ValueError as error:
        return Sample(item, None, SAMPLING, reason=str(error))


def _continue(model: Model, ids: list[int], new_tokens: int, served: Mapping[str, Any]) -> tuple[list[int], float]:
    """The tokens of a greedy continuation, and the seconds they took."""
    import torch

    prompt = torch.tensor([ids], device=model.module.device)
    pad = model.tokenizer.pad_token_id
    options = {"do_sample": False, **served, "max_new_tokens": new_tokens, "pad_token_id": pad}
    with torch.inference_mode():
        began = time.perf_counter()
        made = model.module.generate(input_ids=prompt, attention_mask=torch.ones_like(prompt), **options)
        tokens: list[int] = made[0, len(ids) :].tolist()
        return tokens, time.perf_counter() - began


def _parting(model: Model, ids: list[int], right: list[int], text: list[int]) -> tuple[float, float]:
    """Where two continuations first part: how far apart the logits of their two tokens are, and twice the noise."""
    import torch

    place = next((i for i, (a, b) in enumerate(zip(right, text, strict=False)) if a != b), None)
    if place is None:
        return (0.0 if right == text else float("inf")), 0.0
    row = torch.tensor([[*ids, *right[:place]]], device=model.module.device)
    with torch.inference_mode():
        whole = model.module(input_ids=row, use_cache=False).logits[0].float()
        cache, steps = None, []
        for token in row[0]:
            made = model.module(input_ids=token.view(1, 1), past_key_values=cache, use_cache=True)
            cache = made.past_key_values
            steps.append(made.logits[0, -1].float())
    gap = abs(float(whole[-1, right[place]] - whole[-1, text[place]]))
    return gap, 2 * float((whole - torch.stack(steps)).abs().max())
