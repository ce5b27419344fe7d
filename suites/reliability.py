"""Reliability: whether a model's confidence can be trusted, whether it repeats itself, whether it knows its limits.

Confidence is the softmax over the log-likelihoods of a question's choices. On any multiple-choice task of lm-eval:
Brier score and log-loss a question; debiased squared calibration error, with the naive ECE, which is biased upwards,
and its value for a calibrated model beside it; AURC, E-AURC and accuracy on the surest 80 %. `agreement` is the
probability that two answers drawn by these probabilities agree, `self_consistency` the share of pairs of freely drawn
answers that do. Abstention is the share of unanswerable questions, and of answerable ones, whose likeliest choice is
that nobody knows. TruthfulQA: mc1 and mc2 of a task whose documents hold `mc1_targets` and `mc2_targets`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from weighin.harness import Abstain, Metric, Model, Sample, suite
from weighin.suites import _calibration as calibration
from weighin.suites._choices import Question, questions, scores
from weighin.suites._draw import agreement, drawn
from weighin.suites._figures import jackknife
from weighin.suites._lm_eval import Options, task_files
from weighin.suites._score import Normalise, likelihoods

SEVERAL = "more than one choice is right"
UNKNOWN = Metric("abstention/unknown", unit="1", better="higher")
KNOWN = Metric("abstention/known", unit="1", better="lower")
INFORMED = Metric("abstention/informedness", unit="1", better="higher")
MC = {kind: Metric(f"truthfulqa/{kind}", unit="1", better="higher") for kind in ("mc1", "mc2")}


def _reads(params: Mapping[str, Any]) -> list[Path]:
    named = [*params["tasks"], *(params[name] for name in ("unknown", "known", "truthfulqa") if params[name])]
    return task_files({"tasks": named})


@suite(
    INFORMED,
    UNKNOWN,
    KNOWN,
    needs=("lm_eval", "datasets", "torch"),
    reads=_reads,
    example={"limit": 24, "drawn_questions": 2, "draws": 2, "max_new_tokens": 4},
)
def reliability(
    model: Model,
    *,
    tasks: list[str] = ["world_facts"],  # noqa: B006  (a schema's default, never changed)
    unknown: str | None = "world_unknown",
    known: str | None = "world_unknown_controls",
    truthfulqa: str | None = None,
    normalise: Normalise = "none",
    num_fewshot: Annotated[int, Field(ge=0)] | None = None,
    limit: Annotated[int, Field(gt=0)] | None = 200,
    draws: Annotated[int, Field(ge=0)] = 5,
    drawn_questions: Annotated[int, Field(gt=0)] = 40,
    max_new_tokens: Annotated[int, Field(gt=0)] = 12,
    batch_size: Annotated[int, Field(gt=0)] = 16,
    seed: int = 0,
) -> Iterator[Sample]:
    """Yield the samples of every task; `draws` answers are drawn for the first `drawn_questions` of each (0: none)."""
    if not (tasks or truthfulqa or (unknown and known)):
        raise Abstain("no task was named: nothing to measure")
    options = Options(num_fewshot=num_fewshot, limit=limit)
    for name, asked in (questions(tasks, options) if tasks else {}).items():
        yield from confidence(name, asked, scores(model, asked, normalise, batch_size))
        if draws > 1:
            yield from _consistency(model, name, asked[:drawn_questions], (draws, max_new_tokens, seed))
    if unknown and known:
        yield from _abstention(model, [unknown, known], options, (normalise, batch_size))
    if truthfulqa:
        for asked in questions([truthfulqa], options).values():
            yield from _truthful(model, asked, batch_size)


def confidence(name: str, asked: Sequence[Question], said: Sequence[Sequence[float]]) -> Iterator[Sample]:
    """The samples of one task from the log-likelihoods of its choices (question, choice)."""
    import math

    import numpy as np

    metrics = {key: Metric(f"{name}/{key}", "1", better="lower") for key in ("brier", "nll")}
    metrics |= {key: Metric(f"{name}/{key}", "1", better="higher") for key in ("acc", "agreement")}
    sure, right = [], []
    for question, choices in zip(asked, said, strict=True):
        shares = calibration.softmax(choices)
        best = max(range(len(shares)), key=shares.__getitem__)
        sure.append(shares[best])
        right.append(float(best in question.gold))
        single = next(iter(question.gold)) if len(question.gold) == 1 else None
        value: dict[str, float | None] = {
            "acc": right[-1],
            "brier": None if single is None else calibration.brier(shares, single),
            "nll": -math.log(max(sum(shares[g] for g in question.gold), 1e-300)) if question.gold else None,
            "agreement": sum(share**2 for share in shares),
        }
        for key, metric in metrics.items():
            reason = None if value[key] is not None else SEVERAL if question.gold else "no choice is right"
            detail = {"probabilities": shares, "gold": sorted(question.gold)} if key == "brier" else {}
            yield Sample(question.item, value[key], metric, cluster=question.cluster, reason=reason, detail=detail)
    clusters = [question.cluster or question.item for question in asked]
    yield from _figures(name, np.array(sure), np.array(right), clusters)


def _figures(name: str, sure: Any, right: Any, clusters: Sequence[str]) -> Iterator[Sample]:
    """What is known of all questions together only."""
    few = f"fewer than {calibration.FEWEST} questions"
    bin_ = calibration.bins(sure)
    ece = {"if_calibrated": calibration.expected_ece(sure)}
    figures: list[tuple[str, Any, Callable[[Any], float], tuple[float, float], Mapping[str, Any]]] = [
        ("calibration_error2", "lower", lambda i: calibration.squared_error(sure[i], right[i], bin_[i]), (-1, 1), {}),
        ("ece_naive", "none", lambda i: calibration.naive_ece(sure[i], right[i]), (0, 1), ece),
        ("aurc", "lower", lambda i: calibration.aurc(sure[i], right[i]), (0, 1), {}),
        ("e_aurc", "lower", lambda i: calibration.excess_aurc(sure[i], right[i]), (0, 1), {}),
        ("acc_at_80", "higher", lambda i: calibration.accuracy_at(0.8, sure[i], right[i]), (0, 1), {}),
    ]
    for key, better, figure, bounds, detail in figures:
        metric = Metric(f"{name}/{key}", "1", better=better)
        if len(sure) < calibration.FEWEST:
            yield Sample("all", None, metric, reason=few)
        else:
            yield jackknife(figure, clusters, bounds).sample(metric, len(sure), reason="undefined", detail=detail)


def _consistency(model: Model, name: str, asked: Sequence[Question], how: tuple[int, int, int]) -> Iterator[Sample]:
    """Pairs of drawn answers that agree, one sample a question."""
    draws, tokens, seed = how
    metric = Metric(f"{name}/self_consistency", "1", better="none")
    for question in asked:
        prompt = question.contexts[0]
        texts = drawn(model, prompt, draws=draws, max_new_tokens=tokens, seed=seed)
        if texts is None:
            yield Sample(question.item, None, metric, reason="prompt and answer do not fit the model's window")
        else:
            yield Sample(question.item, agreement(texts), metric, cluster=question.cluster, detail={"answers": texts})


def _abstention(model: Model, tasks: Sequence[str], options: Options, how: tuple[Normalise, int]) -> Iterator[Sample]:
    """How often the likeliest choice is the one that is right in the first task: that nobody knows."""
    import numpy as np

    (unanswerable, answerable) = (next(iter(questions([task], options).values())) for task in tasks)
    refusals = {q.answers[place] for q in unanswerable for place in q.gold}
    said: list[tuple[float, bool]] = []
    for asked, metric in ((unanswerable, UNKNOWN), (answerable, KNOWN)):
        for question, choices in zip(asked, scores(model, asked, *how), strict=True):
            best = max(range(len(choices)), key=choices.__getitem__)
            if refusals.isdisjoint(question.answers):
                yield Sample(question.item, None, metric, reason="nobody-knows is not among its choices")
                continue
            said.append((float(question.answers[best] in refusals), metric is UNKNOWN))
            yield Sample(question.item, said[-1][0], metric, cluster=question.cluster)
    refused, open_ = np.array([v for v, _ in said]), np.array([o for _, o in said], dtype=bool)

    def gap(index: Any) -> float:
        yes, no = refused[index][open_[index]], refused[index][~open_[index]]
        return float(yes.mean() - no.mean()) if len(yes) and len(no) else float("nan")

    figure = jackknife(gap, range(len(said)), (-1.0, 1.0))
    yield figure.sample(INFORMED, len(said), reason="questions of one kind only")


def _truthful(model: Model, asked: Sequence[Question], batch_size: int) -> Iterator[Sample]:
    """mc1: the likeliest of the choices is true. mc2: the share of probability on true ones (Lin et al. 2022, arXiv
    2109.07958)."""
    for kind, metric in MC.items():
        held = [q for q in asked if f"{kind}_targets" in q.doc]
        if not held:
            yield Sample("all", None, metric, reason=f"the task's documents have no {kind}_targets")
            continue
        sets = [(q, q.doc[f"{kind}_targets"]) for q in held]
        pairs = [(q.contexts[0], f" {choice}") for q, targets in sets for choice in targets["choices"]]
        found = iter(likelihoods(model, pairs, batch_size))
        for question, targets in sets:
            shares = calibration.softmax([next(found).total for _ in targets["choices"]])
            true = [share for share, label in zip(shares, targets["labels"], strict=True) if label == 1]
            value = float(max(shares) in true) if kind == "mc1" else sum(true)
            yield Sample(question.item, value, metric, cluster=question.cluster)
