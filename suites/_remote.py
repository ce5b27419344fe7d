"""lm-eval's own model of an OpenAI-compatible server, which asks through our client.

Its tokenisation, truncation, BOS and windows stay lm-eval's code. Its requests are ours: lm-eval's log what a server
says, with whatever key that quotes, and do not wait as long as a server asks to.
"""

from collections.abc import Sequence
from typing import Any

from weighin.harness import Model

OUTPUTS = {"loglikelihood", "loglikelihood_rolling", "multiple_choice"}
"""What lm-eval calls tasks that score given text."""


def remote(model: Any, max_length: int | None, add_bos_token: bool | None) -> Any:
    """An lm-eval `LM` on an `EndpointModel`. Without a tokenizer it generates and does not score."""
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    known = any(model.checkpoint.path.glob("tokenizer*"))
    lm = LocalCompletionsAPI(
        base_url=model.client.url,
        model=model.endpoint.name,
        tokenizer=str(model.checkpoint.path) if known else None,
        tokenizer_backend="huggingface" if known else None,
        max_length=max_length or model.window,
        # as the tokenizer has it, where nothing is said: so does lm-eval with a model in memory
        add_bos_token=_begins(model) if add_bos_token is None and known else bool(add_bos_token),
    )
    lm._loglikelihood_tokens = lambda requests, **_: _likelihoods(model, requests, lm.max_length)
    lm.generate_until = lambda requests, **_: _texts(model, requests)
    return lm


def unable(model: Any, task: Any) -> str:
    """Why a task cannot be put to a model behind a server; empty where it can."""
    return str(model.unable()) if task.get_config("output_type") in OUTPUTS else ""


def _begins(model: Model) -> bool:
    first = model.tokenizer.bos_token_id
    return first is not None and model.encode("a")[:1] == [first]


def _likelihoods(model: Any, requests: Sequence[Any], most: int) -> list[tuple[float, bool]]:
    """Log-likelihood of each continuation, nats, and whether it is greedy; long contexts lose their beginning."""
    asked = [((context + continuation)[-most:], len(continuation)) for _, context, continuation in requests]
    return [(each.total, all(each.greedy)) for each in model.scores(asked)]


def _texts(model: Any, requests: Sequence[Any]) -> list[str]:
    """Answers, those that may be equally long and end alike at once."""
    answers: dict[int, str] = {}
    groups: dict[tuple[int, tuple[str, ...]], list[int]] = {}
    for number, request in enumerate(requests):
        asked = request.args[1]
        until = asked.get("until") or []
        ends = (until,) if isinstance(until, str) else tuple(until)
        groups.setdefault((int(asked.get("max_gen_toks", 256)), ends), []).append(number)
    for (most, ends), numbers in groups.items():
        prompts = [requests[number].args[0] for number in numbers]
        answers.update(zip(numbers, model.generate(prompts, max_new_tokens=most, stop=ends), strict=True))
    return [answers[number] for number in range(len(requests))]
