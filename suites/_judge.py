"""Metrics that a judge gives: a language model behind an OpenAI-compatible endpoint that the user names. ragas asks it.

Nobody judges by default. The endpoint's key is read from the environment, `WEIGHIN_JUDGE_KEY`, and kept nowhere.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from weighin.suites._ragas import Answered, encoder

KEY = "WEIGHIN_JUDGE_KEY"
AT_ONCE = 4
"""Answers that are judged at the same time."""
SECONDS = 120.0
"""How long one request may take before it counts as failed."""


class Judge(NamedTuple):
    """`url` of an OpenAI-compatible endpoint, up to and with `/v1`, and the `model` that is asked there."""

    url: str
    model: str


class Scored(NamedTuple):
    """A value in [0, 1], or None and the reason why the judge gave none."""

    value: float | None
    reason: str | None = None


def judged(answered: Sequence[Answered], judge: Judge, embeddings: str | None) -> dict[str, list[Scored]]:
    """Each metric's values by its name here, one a question: `faithfulness`, the share of an answer's statements that
    the passages support, and with a local encoder `answer_relevancy`, how near the questions that the answer would
    answer are to the one that was asked (Es et al. 2023, arXiv 2309.15217, section 3).

    An answer that the judge cannot be asked about, or answers wrongly about, has no value: it is never counted as 0.
    """
    os.environ.setdefault("RAGAS_DO_NOT_TRACK", "true")
    return asyncio.run(_all(answered, judge, embeddings))


async def _all(answered: Sequence[Answered], judge: Judge, embeddings: str | None) -> dict[str, list[Scored]]:
    from openai import AsyncOpenAI
    from ragas.llms import llm_factory
    from ragas.metrics.collections import AnswerRelevancy, Faithfulness

    free = asyncio.Semaphore(AT_ONCE)
    async with AsyncOpenAI(base_url=judge.url, api_key=os.environ.get(KEY, "none"), timeout=SECONDS) as client:
        asked = llm_factory(judge.model, client=client, temperature=0.0)
        faithful = Faithfulness(llm=asked)
        metrics: dict[str, Callable[[Answered], Awaitable[Any]]] = {
            "faithfulness": lambda one: faithful.ascore(
                user_input=one.question, response=one.response, retrieved_contexts=one.found
            )
        }
        if embeddings:
            relevant = AnswerRelevancy(llm=asked, embeddings=_embedding(embeddings))
            metrics["answer_relevancy"] = lambda one: relevant.ascore(user_input=one.question, response=one.response)
        return {
            name: list(await asyncio.gather(*(_one(ask, one, free) for one in answered)))
            for name, ask in metrics.items()
        }


async def _one(ask: Callable[[Answered], Awaitable[Any]], one: Answered, free: asyncio.Semaphore) -> Scored:
    if not one.response:
        return Scored(None, "there is no answer to judge")
    async with free:
        try:
            value = float((await ask(one)).value)
        except Exception as error:  # whatever an endpoint does wrong costs this one value
            return Scored(None, f"the judge failed: {_cause(error)}")
    if not 0 <= value <= 1 + 1e-6:
        return Scored(None, "the judge found nothing to judge")
    return Scored(min(value, 1.0))


def _cause(error: BaseException) -> str:
    """What was wrong in the first place, in one line and without the key."""
    while error.__cause__ is not None:
        error = error.__cause__
    status = getattr(error, "status_code", None)
    said = f"HTTP {status}" if status else (str(error).strip() or type(error).__name__).splitlines()[0]
    key = os.environ.get(KEY)
    return (said.replace(key, "…") if key else said)[:200]


def _embedding(folder: str) -> Any:
    """A local encoder as ragas wants one."""
    from ragas.embeddings.base import BaseRagasEmbedding

    vector = encoder(folder)

    class Local(BaseRagasEmbedding):  # type: ignore[misc,unused-ignore]  # the library asks for its own kind
        def embed_text(self, text: str, **_: Any) -> list[float]:
            return list(map(float, vector(text)))

        async def aembed_text(self, text: str, **_: Any) -> list[float]:
            return self.embed_text(text)

    return Local()
