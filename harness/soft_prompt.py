"""A soft prompt (prompt tuning, arXiv 2104.08691) before everything a model reads, for callers who know nothing of it.

`transformers` does not load such an adapter, and peft's own model answers with logits of the prompt's places too and
sets the prompt before every piece of a text that is read with a cache. Here the model stays what it was: as many logits
as tokens, the prompt read once a sequence, generation as ever.
"""

import functools
from pathlib import Path
from typing import Any


def attach(model: Any, adapter: Path) -> Any:
    """Set the prompt of an adapter's directory before the model, in place, and return the model."""
    import torch
    from safetensors.torch import load_file

    vectors = load_file(adapter / "adapter_model.safetensors")["prompt_embeddings"]  # (tokens, hidden)
    like = model.get_input_embeddings().weight
    model.soft_prompt = torch.nn.Parameter(vectors.to(like.device, like.dtype), requires_grad=False)
    plain = model.forward

    @functools.wraps(plain)  # generation reads the signature
    def forward(input_ids: Any = None, **given: Any) -> Any:
        embeds, cache = given.pop("inputs_embeds", None), given.get("past_key_values")
        embeds = model.get_input_embeddings()(input_ids) if embeds is None else embeds
        first = cache is None or cache.get_seq_length() == 0
        if first:
            prompt = model.soft_prompt.expand(len(embeds), -1, -1)
            embeds = torch.cat([prompt.to(embeds.dtype), embeds], dim=1)
        answer = plain(inputs_embeds=embeds, **_placed(given, len(model.soft_prompt), embeds.shape[1], first))
        return _cut(answer, len(model.soft_prompt), embeds.shape[1]) if first else answer

    model.forward = forward
    return model


def _placed(given: dict[str, Any], extra: int, width: int, first: bool) -> dict[str, Any]:
    """Mask, positions and labels with room for the `extra` places of the prompt."""
    import torch

    given.pop("cache_position", None)  # counted without the prompt, as the positions are
    mask = given.get("attention_mask")
    if given.pop("position_ids", None) is not None and mask is None:
        raise ValueError("positions beside a soft prompt need an attention mask")
    if mask is not None:
        mask = torch.cat([mask.new_ones(len(mask), extra), mask], dim=1)
        positions = (mask.long().cumsum(1) - 1).clamp(min=0)
        given |= {"attention_mask": mask, "position_ids": positions[:, -width:]}
    labels = given.get("labels")
    if first and labels is not None:
        given["labels"] = torch.cat([labels.new_full((len(labels), extra), -100), labels], dim=1)
    return given


def _cut(answer: Any, extra: int, width: int) -> Any:
    """An answer without the prompt's own places."""
    if answer.logits.shape[1] == width:
        answer.logits = answer.logits[:, extra:]
    if answer.get("hidden_states") is not None:
        answer.hidden_states = tuple(state[:, extra:] for state in answer.hidden_states)
    return answer
