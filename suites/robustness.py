"""Robustness: what is left of a model's answers when a question is asked a little differently.

Each question of a multiple-choice task is asked as it is and then with typing errors (5 % of its letters), in small and
in capital letters, with doubled spaces, without punctuation, in ten prompt formats of a frozen grammar, and with its
choices listed by letter in every cyclic order. All changes are seeded and the same for every variant of a model, and an
item keeps its content hash, so that variants pair. A drop is accuracy as it is less accuracy when changed, question by
question. `mean` and `worst` are a question's mean and minimum over the changes. Consistency is, for each question, the
share of unordered pairs of askings with the same answer; its mean over questions counts every question alike.

Order: `rstd` is the standard deviation over positions of the recall of the right answer there (Zheng et al. 2023,
arXiv 2309.03882); `acc_averaged` answers by the log-probability averaged over orders. Formats: the spread is the best
format's accuracy less the worst's (Sclar et al. 2023, arXiv 2310.11324); noise alone makes it larger the fewer
questions there are.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations
from typing import Annotated, Any, Literal

from pydantic import Field

from weighin.harness import Abstain, Metric, Model, Sample, suite
from weighin.suites import _perturb
from weighin.suites._choices import Question, questions, scores
from weighin.suites._figures import jackknife
from weighin.suites._lm_eval import Options, task_files
from weighin.suites._score import Normalise, likelihoods

Change = Literal["typos", "lower", "upper", "spaces", "punctuation", "order", "format"]
NO_LIST = "the document does not hold the texts of its choices, or there are more than 26"
TIE = 1e-4
"""Nats within which averaged log-probabilities are alike."""


@suite(
    needs=("lm_eval", "datasets", "torch"),
    reads=task_files,
    example={"limit": 6},
)
def robustness(
    model: Model,
    *,
    tasks: Annotated[list[str], Field(min_length=1)] = ["world_facts"],  # noqa: B006  (a schema's default)
    changes: Annotated[list[Change], Field(min_length=1)] = [  # noqa: B006  (a schema's default)
        "typos",
        "lower",
        "upper",
        "spaces",
        "punctuation",
        "order",
        "format",
    ],
    normalise: Normalise = "none",
    num_fewshot: Annotated[int, Field(ge=0)] | None = None,
    limit: Annotated[int, Field(gt=0)] | None = 100,
    batch_size: Annotated[int, Field(gt=0)] = 16,
    seed: int = 0,
) -> Iterator[Sample]:
    """Yield one sample a question and change."""
    for name, asked in questions(tasks, Options(num_fewshot=num_fewshot, limit=limit)).items():
        if any(not question.gold for question in asked):
            raise Abstain(f"tasks: {name} has questions without a right answer")
        if any(len(set(question.contexts)) > 1 for question in asked):
            raise Abstain(f"tasks: {name} puts its choices into the prompt: there is no one prompt to change")
        clean = _chosen(scores(model, asked, normalise, batch_size))
        said = {"clean": clean}
        for kind in (change for change in changes if change in _perturb.KINDS):
            changed = [_changed(question, _perturb.perturb(question.own, kind, seed)) for question in asked]
            said[kind] = _chosen(scores(model, changed, normalise, batch_size))
        yield from _perturbed(name, asked, said, seed)
        if "format" in changes:
            yield from _formats(name, asked, _by_format(model, asked, normalise, batch_size))
        if "order" in changes:
            yield from _orders(model, name, asked, batch_size)


def _changed(question: Question, own: str) -> Question:
    """A question with another text in the place of its own."""
    context = question.before + own
    return replace(question, contexts=(context,) * len(question.contexts), own=own)


def _chosen(said: Sequence[Sequence[float]]) -> list[int]:
    return [max(range(len(one)), key=one.__getitem__) for one in said]


def _metric(name: str, kind: str, better: Any = "higher") -> Metric:
    return Metric(f"{name}/{kind}", unit="1", better=better, signed=kind.endswith("drop"))


def _perturbed(name: str, asked: Sequence[Question], said: Mapping[str, Sequence[int]], seed: int) -> Iterator[Sample]:
    """Accuracy, drop, mean, worst and consistency of the changes of `KINDS`, one sample a question each."""
    kinds = [kind for kind in said if kind != "clean"]
    for number, question in enumerate(asked):
        where: dict[str, Any] = {"cluster": question.cluster}
        right = {kind: float(answers[number] in question.gold) for kind, answers in said.items()}
        yield Sample(question.item, right["clean"], _metric(name, "clean/acc"), **where)
        for kind in kinds:
            prompt = {"prompt": _perturb.perturb(question.own, kind, seed)} if number < 3 else {}
            yield Sample(question.item, right[kind], _metric(name, f"{kind}/acc"), detail=prompt, **where)
            drop = right["clean"] - right[kind]
            yield Sample(question.item, drop, _metric(name, f"{kind}/drop", "lower"), **where)
        if kinds:
            changed = [right[kind] for kind in kinds]
            yield Sample(question.item, sum(changed) / len(changed), _metric(name, "mean/acc"), **where)
            yield Sample(question.item, min(changed), _metric(name, "worst/acc"), **where)
            same = consistency([answers[number] for answers in said.values()])
            yield Sample(question.item, same, _metric(name, "consistency"), **where)


def consistency(answers: Sequence[int]) -> float:
    """The share of unordered pairs of answers that are the same."""
    pairs = list(combinations(answers, 2))
    return sum(a == b for a, b in pairs) / len(pairs)


def _by_format(model: Model, asked: Sequence[Question], normalise: Normalise, batch_size: int) -> list[list[int]]:
    """The chosen choice of each question in each format: (question, format)."""
    count = len(_perturb.FORMATS)
    changed = [_changed(question, own) for question in asked for own in _perturb.formats(question.own)]
    chosen = _chosen(scores(model, changed, normalise, batch_size))
    return [chosen[count * i : count * (i + 1)] for i in range(len(asked))]


def _formats(name: str, asked: Sequence[Question], chosen: Sequence[Sequence[int]]) -> Iterator[Sample]:
    """A question's accuracy and consistency over formats; the worst, the median and the best format, and the spread."""
    import numpy as np

    right = np.array([[float(c in q.gold) for c in row] for q, row in zip(asked, chosen, strict=True)])
    for question, row, marks in zip(asked, chosen, right, strict=True):
        yield Sample(question.item, float(marks.mean()), _metric(name, "format/acc"), cluster=question.cluster)
        yield Sample(question.item, consistency(row), _metric(name, "format/consistency"), cluster=question.cluster)
    clusters = [question.cluster or question.item for question in asked]
    by_format = [float(value) for value in right.mean(axis=0)]
    figures: dict[str, tuple[Any, Any]] = {
        "min": (lambda acc: acc.min(), "higher"),
        "median": (np.median, "higher"),
        "max": (lambda acc: acc.max(), "higher"),
        "spread": (np.ptp, "lower"),
    }
    for key, (figure, better) in figures.items():
        found = jackknife(partial(_over_formats, figure, right), clusters, (0.0, 1.0))
        metric = _metric(name, f"format/{key}", better)
        yield found.sample(metric, len(asked), reason="no questions", detail={"by_format": by_format})


def _over_formats(figure: Any, right: Any, index: Any) -> float:
    """A figure of the accuracies of formats, from (question, format)."""
    return float(figure(right[index].mean(axis=0)))


def _texts(question: Question) -> tuple[str, ...] | None:
    """What its choices say; None where they are letters whose texts the document does not hold."""
    choices = tuple(answer.strip() for answer in question.answers)
    if "".join(choices) != _perturb.LETTERS[: len(choices)]:
        return choices
    held = question.doc.get("choices")
    held = held.get("text") if isinstance(held, Mapping) else held
    texts = tuple(map(str, held)) if isinstance(held, list | tuple) else ()
    return texts if len(texts) == len(choices) and texts != choices else None


def _orders(model: Model, name: str, asked: Sequence[Question], batch_size: int) -> Iterator[Sample]:
    """The choices listed by letter in every cyclic order, answered by the likeliest letter."""
    listed = [(question, texts) for question in asked if (texts := _texts(question)) and len(texts) <= 26]
    for question in asked:
        if all(question is not other for other, _ in listed):
            yield Sample(question.item, None, _metric(name, "order/acc"), cluster=question.cluster, reason=NO_LIST)
    prompts = [
        (question, question.before + prompt, order)
        for question, texts in listed
        for prompt, order in _perturb.orders(question.own, texts)
    ]
    pairs = [(prompt, f" {_perturb.LETTERS[i]}") for _, prompt, order in prompts for i in range(len(order))]
    found = iter(likelihoods(model, pairs, batch_size))
    answered: dict[str, tuple[Question, list[tuple[tuple[int, ...], list[float]]]]] = {}
    for question, _, order in prompts:
        said = [next(found).total for _ in order]
        answered.setdefault(question.item, (question, []))[1].append((order, said))
    recall: list[list[tuple[int, float]]] = []
    for question, askings in answered.values():
        answers = [order[max(range(len(said)), key=said.__getitem__)] for order, said in askings]
        right = [float(answer in question.gold) for answer in answers]
        recall.append([(order.index(min(question.gold)), r) for (order, _), r in zip(askings, right, strict=True)])
        values = {"order/acc": sum(right) / len(right), "order/consistency": consistency(answers)}
        values["order/acc_averaged"] = _averaged(askings, question.gold)
        for key, value in values.items():
            yield Sample(question.item, value, _metric(name, key), cluster=question.cluster)
    clusters = [question.cluster or question.item for question, _ in answered.values()]
    yield _spread_of_recall(name, recall, clusters)


def _averaged(askings: Sequence[tuple[tuple[int, ...], list[float]]], gold: frozenset[int]) -> float:
    """Whether the log-probability averaged over orders is highest for a right choice; ties share the point."""
    total = dict.fromkeys(askings[0][0], 0.0)
    for order, said in askings:
        for which, score in zip(order, said, strict=True):
            total[which] += score / len(askings)
    best = [which for which, score in total.items() if score > max(total.values()) - TIE]
    return sum(which in gold for which in best) / len(best)


def _spread_of_recall(name: str, recall: Sequence[Sequence[tuple[int, float]]], clusters: Sequence[str]) -> Sample:
    """RStd over the positions that every question has."""
    import numpy as np

    positions = min((len(row) for row in recall), default=0)
    table = np.full((len(recall), positions), np.nan)
    for number, row in enumerate(recall):
        for place, right in row:
            if place < positions:
                table[number, place] = right

    def rstd(index: Any) -> float:
        return float(np.nanmean(table[index], axis=0).std()) if positions > 1 else float("nan")

    found = jackknife(rstd, clusters, (0.0, 1.0))
    detail = {
        "recall": [float(value) for value in np.nanmean(table, axis=0)] if positions else [],
        "chance": 1 / positions if positions else None,  # near it a model picks letters, and there is no order to tell
    }
    return found.sample(_metric(name, "order/rstd", "lower"), len(recall), reason=NO_LIST, detail=detail)
