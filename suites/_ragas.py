"""ragas asked for its metrics that need no judge: nothing is sent anywhere, and its use is told to nobody."""

import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from weighin.harness import WeighinError


class Answered(NamedTuple):
    """A question, what was said, what may be said, the passages that were found and those that tell."""

    question: str
    response: str
    references: tuple[str, ...]
    found: list[str]
    telling: list[str]

    def shown(self) -> dict[str, Any]:
        """What a reader wants to see of it."""
        return {"prompt": self.question, "responses": [self.response], "target": self.references[0]}


def scored(answered: Sequence[Answered]) -> dict[str, list[float]]:
    """Each metric's values by its name here, one a question; with several references the best of them counts."""
    metrics = _metrics()
    found: dict[str, list[float]] = {name: [] for name in metrics}
    for one in answered:
        for name, metric in metrics.items():
            # What was found does not depend on how the answer may be put.
            references = one.references[:1] if name.startswith("context") else one.references
            found[name].append(max(_score(metric, one, reference) for reference in references))
    return found


def _score(metric: Any, one: Answered, reference: str) -> float:
    from ragas.dataset_schema import SingleTurnSample

    sample = SingleTurnSample(
        user_input=one.question,
        response=one.response,
        reference=reference,
        retrieved_contexts=one.found,
        reference_contexts=one.telling,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(metric.single_turn_score(sample))


def _metrics() -> dict[str, Any]:
    os.environ.setdefault("RAGAS_DO_NOT_TRACK", "true")  # read at each use
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # these names are to move within the library
        from ragas import metrics

        return {
            "context_precision": metrics.NonLLMContextPrecisionWithReference(),
            "context_recall": metrics.NonLLMContextRecall(),
            "exact_match": metrics.ExactMatch(),
            "bleu": metrics.BleuScore(),
            "rouge_l": metrics.RougeScore(),
            "string_similarity": metrics.NonLLMStringSimilarity(),
        }


def semantic(answered: Sequence[Answered], folder: str) -> list[float]:
    """Cosine of the encoder's vectors of the response and of the nearest reference, one a question."""
    vector = encoder(folder)
    return [max(float(vector(one.response) @ vector(each)) for each in one.references) for one in answered]


def encoder(folder: str) -> Callable[[str], Any]:
    """What gives a text's vector of length 1, (width,): the mean of the last hidden states of a Hugging Face encoder.

    Raises WeighinError where the encoder cannot be loaded.
    """
    import torch
    from transformers import AutoModel, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        model = AutoModel.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=torch.float32
        ).eval()
    except (OSError, ValueError) as error:
        raise WeighinError(f"embeddings: {folder}: {str(error).splitlines()[0]}") from None

    def vector(text: str) -> Any:
        batch = tokenizer(text or " ", return_tensors="pt", truncation=True)
        with torch.inference_mode():
            return torch.nn.functional.normalize(model(**batch).last_hidden_state[0].mean(0), dim=0)

    return vector
