"""Text that a model writes itself: continuations of given beginnings, and which of them are fit to learn from."""

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

from weighin.harness import WeighinError

log = logging.getLogger(__name__)


class Written(NamedTuple):
    """A beginning, the tokens a model wrote after it (with the end token where it stopped), and how likely they are."""

    prompt: list[int]
    tokens: list[int]
    logprob: float
    """Mean log-probability of the written tokens under their writer at temperature 1, nats a token."""


class Writing(NamedTuple):
    """How a model is made to write: at most `length` tokens, `batch` beginnings at once."""

    length: int
    temperature: float
    batch: int
    end: list[int]
    """Ids of the tokens that end a text."""
    least: float
    """How likely a text must be to be kept, nats a token."""


def beginnings(rows: Sequence[Sequence[int]], length: int) -> list[list[int]]:
    """The first `length` tokens of each row, but never more than half of it."""
    return [list(row[: max(1, min(length, len(row) // 2))]) for row in rows]


def end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """Ids of the tokens at which a model stops, by its generation settings and its tokenizer."""
    declared = getattr(model.generation_config, "eos_token_id", None)
    found = declared if isinstance(declared, list) else [declared]
    return sorted({each for each in [*found, tokenizer.eos_token_id] if each is not None})


def write(model: Any, prompts: Sequence[list[int]], how: Writing, name: str) -> list[Written]:
    """Continue each prompt by drawing tokens from the model, whole distribution, from torch's global generator."""
    from tqdm import tqdm
    from transformers import GenerationConfig

    # The model's own settings (top-p, penalties) would be mixed into any that are given with the call.
    model.generation_config = GenerationConfig(
        do_sample=True,
        temperature=how.temperature,
        top_k=0,
        top_p=1.0,
        max_new_tokens=how.length,
        eos_token_id=how.end or None,
        pad_token_id=how.end[0] if how.end else 0,
        return_dict_in_generate=True,
        output_logits=True,
    )
    found: list[Written] = []
    for at in tqdm(range(0, len(prompts), how.batch), desc=name, unit="batch"):
        found += _written(model, prompts[at : at + how.batch], how.end)
    return found


def _written(model: Any, prompts: Sequence[list[int]], end: Sequence[int]) -> list[Written]:
    import torch

    longest = max(map(len, prompts))
    ids = torch.zeros(len(prompts), longest, dtype=torch.long, device=model.device)
    mask = torch.zeros_like(ids)
    for i, prompt in enumerate(prompts):
        ids[i, longest - len(prompt) :] = torch.tensor(prompt)
        mask[i, longest - len(prompt) :] = 1
    with torch.inference_mode():
        made = model.generate(input_ids=ids, attention_mask=mask)
        tokens = made.sequences[:, longest:]
        likely = torch.stack([torch.log_softmax(step.float(), -1) for step in made.logits], 1)  # (row, place, token)
        likely = likely.gather(2, tokens[:, :, None])[:, :, 0]
    rows = []
    for i, prompt in enumerate(prompts):
        row = tokens[i].tolist()
        size = next((at + 1 for at, token in enumerate(row) if token in end), len(row))
        rows.append(Written(prompt, row[:size], likely[i, :size].mean().item()))
    return rows


def fit_to_learn(written: Sequence[Written], how: Writing, name: str) -> list[Written]:
    """Those that say something, do not go in circles, and are likely enough to their writer.

    The log says how many were dropped and why; WeighinError where none is left.
    """
    kept: list[Written] = []
    dropped = {"empty": 0, "in circles": 0, "too unlikely": 0}
    for each in written:
        if not [token for token in each.tokens if token not in how.end]:
            dropped["empty"] += 1
        elif circles(each.tokens):
            dropped["in circles"] += 1
        elif not each.logprob >= how.least:  # a NaN is dropped, too
            dropped["too unlikely"] += 1
        else:
            kept.append(each)
    count = ", ".join(f"{number} {reason}" for reason, number in dropped.items())
    log.info("%s: %d of %d generated texts kept (dropped: %s)", name, len(kept), len(written), count)
    if not kept:
        raise WeighinError(f"{name}: none of the teacher's {len(written)} texts is fit to learn from ({count})")
    return kept


def circles(tokens: Sequence[int], run: int = 4) -> bool:
    """Whether more than half of the runs of `run` tokens stood before in the same text."""
    runs = [tuple(tokens[i : i + run]) for i in range(len(tokens) - run + 1)]
    return len(runs) > 1 and len(set(runs)) < len(runs) / 2
