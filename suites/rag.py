"""Retrieval-augmented generation: what is found for a question, and what the model makes of what is found.

Passages are searched by words (TF-IDF) or by the model's own hidden states; the model reads the nearest ones and
answers. No judge: context precision and recall by string distance, exact match, BLEU, ROUGE-L and string similarity of
the answer's first line, and semantic similarity where a local encoder is named. Faithfulness and answer relevancy are
judged by a language model behind an endpoint that the user names, by nobody else.

Library: ragas (Es et al., "RAGAS: Automated Evaluation of Retrieval Augmented Generation", arXiv 2309.15217).
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from weighin.harness import Abstain, Metric, Model, Sample, WeighinError, suite
from weighin.suites import _corpus
from weighin.suites._corpus import Corpus, Question, by_vectors, by_words
from weighin.suites._judge import Judge, Scored, judged
from weighin.suites._ragas import Answered, scored, semantic

NAMES = ("context_precision", "context_recall", "exact_match", "bleu", "rouge_l", "string_similarity")
METRICS = {name: Metric(name, "1") for name in NAMES}
HIT = Metric("hit", "1")
SEMANTIC = Metric("semantic_similarity", "1")
JUDGED = {name: Metric(name, "1") for name in ("faithfulness", "answer_relevancy")}
PROMPT = "{passages}\nQuestion: {question}\nAnswer:"


def _reads(params: Mapping[str, Any]) -> list[Path]:
    return _corpus.files(dict(params))


@suite(
    HIT,
    *METRICS.values(),
    needs=("ragas", "sklearn", "rapidfuzz", "rouge_score", "sacrebleu", "torch", "transformers"),
    reads=_reads,
    example={"limit": 2, "new_tokens": 4, "top_k": 1},
)
def rag(
    model: Model,
    *,
    data: str = _corpus.OURS,
    corpus: str | None = None,
    retriever: Literal["words", "model"] = "words",
    top_k: Annotated[int, Field(gt=0)] = 1,
    limit: Annotated[int, Field(gt=0)] = 60,
    new_tokens: Annotated[int, Field(gt=0)] = 16,
    embeddings: str | None = None,
    judge: str | None = None,
    judge_model: str | None = None,
) -> Iterator[Sample]:
    """Yield the samples of each of the first `limit` questions; a passage's questions are a cluster.

    `embeddings` is the directory of a Hugging Face encoder, `judge` the URL of an OpenAI-compatible endpoint, up to and
    with `/v1`, and `judge_model` what is asked there; its key is read from `WEIGHIN_JUDGE_KEY`. Answer relevancy needs
    an encoder and a judge.
    """
    if (judge is None) != (judge_model is None):
        raise WeighinError("judge and judge_model go together: the URL of an endpoint, and the model to ask there")
    found = _corpus.load(data, corpus)
    questions = found.questions[:limit]
    places = _retrieved(model, found, questions, retriever, top_k)
    answered = [_answer(model, found, one, near, new_tokens) for one, near in zip(questions, places, strict=True)]
    scores = {METRICS[name]: [Scored(value) for value in values] for name, values in scored(answered).items()}
    if embeddings:
        scores[SEMANTIC] = [Scored(value) for value in semantic(answered, embeddings)]
    if judge and judge_model:
        found_by = judged(answered, Judge(judge, judge_model), embeddings)
        scores |= {JUDGED[name]: values for name, values in found_by.items()}
    for place, (one, near) in enumerate(zip(questions, places, strict=True)):
        cluster = f"passage {one.source}"
        yield Sample(one.item, float(one.source in near), HIT, cluster=cluster, detail=answered[place].shown())
        for metric, values in scores.items():
            value, reason = values[place]
            yield Sample(one.item, value, metric, cluster=cluster, reason=reason)


def _retrieved(model: Model, found: Corpus, questions: list[Question], how: str, count: int) -> list[list[int]]:
    texts = [one.text for one in questions]
    if how == "words":
        return by_words(found.passages, texts, count)
    return by_vectors(_vectors(model, found.passages), _vectors(model, texts), count)


def _vectors(model: Model, texts: list[str]) -> Any:
    """The mean of the last hidden states of each text, (text, width)."""
    import numpy as np
    import torch

    if model.runtime:
        raise Abstain(f"retriever: vectors are hidden states, which {model.runtime.name} does not give. Use words")
    rows = []
    with torch.inference_mode():
        for text in texts:
            ids = torch.tensor([model.encode(text)[: model.window]], device=model.module.device)
            states = model.module(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states[-1]
            rows.append(states[0].float().mean(0).cpu().numpy())
    return np.stack(rows)


def _answer(model: Model, found: Corpus, one: Question, near: list[int], new_tokens: int) -> Answered:
    """What the model answers after the passages, its first line."""
    passages = [found.passages[place] for place in near]
    prompt = PROMPT.format(passages="\n".join(passages), question=one.text)
    if len(model.encode(prompt)) + new_tokens > model.window:
        raise Abstain(f"top_k: {len(near)} passages and {new_tokens} tokens do not fit the window of {model.window}")
    (text,) = model.generate([prompt], max_new_tokens=new_tokens)
    return Answered(one.text, text.strip().split("\n")[0].strip(), one.answers, passages, [found.passages[one.source]])
