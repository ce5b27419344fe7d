"""Accuracy on lm-eval tasks: any of its tasks by name, a task file of one's own by path.

Every item is kept with its choices' log-likelihoods, its content hash and its cluster, so that two variants can be
compared item by item. A metric reads TASK/METRIC, as in `arc_easy/acc_norm`.

Library: lm-eval (Gao et al., the Language Model Evaluation Harness, zenodo.12608602).
"""

import math
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import Field

from weighin.harness import Abstain, Metric, Model, Sample, WeighinError, suite
from weighin.suites._flips import flips
from weighin.suites._lm_eval import Options, evaluate, item_keys, load_tasks, task_files
from weighin.suites._macro import macro, task_mean
from weighin.suites._remote import unable


@suite(needs=("lm_eval", "datasets"), reads=task_files, example={"tasks": ["world_facts"], "limit": 6})
def accuracy(
    model: Model,
    *,
    tasks: Annotated[list[str], Field(min_length=1)],
    num_fewshot: Annotated[int, Field(ge=0)] | None = None,
    limit: Annotated[int, Field(gt=0)] | None = None,
    batch_size: Annotated[int, Field(gt=0)] = 16,
    max_length: Annotated[int, Field(gt=1)] | None = None,
    add_bos_token: bool | None = None,
    fewshot_random_seed: int = 1234,
    seed: int = 0,
) -> Iterator[Sample]:
    """Yield one sample a document and metric, and one a group and metric; parameters are lm-eval's own.

    But for `limit`: it draws a sample of a task's documents by `seed`, stratified by their answers.
    """
    options = Options(num_fewshot, limit, batch_size, max_length, add_bos_token, fewshot_random_seed, seed)
    loaded = load_tasks(tasks, options)
    yield from _left_out(model, loaded)
    found: dict[str, list[Sample]] = {}
    for name, logged in evaluate(model, loaded, options).items():
        found[name] = list(task_samples(name, loaded["tasks"][name], logged, _windows(model, options)))
        yield from found[name]
        yield from flips(model, name, logged)
    for name, group in loaded["groups"].items():
        yield from _macro_averages(name, [found[task.task_name] for task in group.get_all_tasks()])


def _left_out(model: Model, loaded: dict[str, Any]) -> Iterator[Sample]:
    """Take out the tasks that a model behind a server cannot answer, with a reason each; abstain where none is left."""
    reasons = {name: unable(model, task) for name, task in loaded["tasks"].items()} if model.endpoint else {}
    absent = {name: reason for name, reason in reasons.items() if reason}
    if not absent:
        return
    if len(absent) == len(loaded["tasks"]):
        raise Abstain(next(iter(absent.values())))
    loaded["tasks"] = {name: task for name, task in loaded["tasks"].items() if name not in absent}
    loaded["groups"] = {}
    for name, reason in absent.items():
        yield Sample("all", None, Metric(f"{name}/acc", "1", better="higher"), reason=reason)


def _windows(model: Model, options: Options) -> dict[str, Any]:
    """How lm-eval walks over a long text: windows side by side, each token predicted once, after the first token."""
    window = options.max_length or model.window
    if model.endpoint:
        return {"window": window}
    first = model.tokenizer.bos_token or model.tokenizer.eos_token
    return {"window": window, "stride": window, "first_token": first}


def _macro_averages(group: str, tasks: list[list[Sample]]) -> Iterator[Sample]:
    """Of every metric that all tasks of the group have as a plain mean."""
    by_metric: list[dict[str, list[Sample]]] = []
    for samples in tasks:
        by_metric.append({})
        for sample in samples:
            if sample.metric and sample.metric.reduce == "mean" and sample.metric.unit == "1":
                by_metric[-1].setdefault(sample.metric.name.partition("/")[2], []).append(sample)
    for label in by_metric[0] if by_metric else ():
        if not all(label in known for known in by_metric):
            continue
        scored = [[s for s in known[label] if s.value is not None] for known in by_metric]
        if not all(scored):
            continue
        means = [task_mean([s.value or 0.0 for s in each], [s.cluster or s.item for s in each]) for each in scored]
        value, low, high = macro(means)
        metric = Metric(f"{group}/{label}", "1", scored[0][0].metric.better if scored[0][0].metric else "none")
        items = sum(mean.items for mean in means)
        yield Sample("macro average", value, metric, weight=items, detail={"tasks": len(means)}, low=low, high=high)


def task_samples(name: str, task: Any, logged: list[dict[str, Any]], windows: dict[str, Any]) -> Iterator[Sample]:
    """lm-eval's samples of one task as ours. A corpus-level metric is one sample, by lm-eval's own aggregation."""
    rolling = task.get_config("output_type") == "loglikelihood_rolling"
    field = (task.get_config("metadata") or {}).get("cluster")
    corpus: dict[str, list[Any]] = {}
    told: set[str] = set()
    margins: set[str] = set()
    for sample, item in zip(logged, item_keys(logged), strict=True):
        for metric in sample["metrics"]:
            label = metric if sample["filter"] == "none" else f"{metric},{sample['filter']}"
            how = _Reduction.of(task, metric)
            if how is None:
                corpus.setdefault(label, []).append(sample[metric])
                continue
            value, weight = how.one(sample[metric])
            yield Sample(
                item,
                value,
                Metric(f"{name}/{label}", how.unit, _better(task, metric), how.reduce),
                weight=weight,
                cluster=str(sample["doc"][field]) if field else None,
                detail={} if item in told else {**_detail(sample), **(windows if rolling else {})},
            )
            told.add(item)
        margin = gold_margin(sample)
        if margin is not None and item not in margins:  # several filters tell of one item
            margins.add(item)
            cluster = str(sample["doc"][field]) if field else None
            yield Sample(item, margin, Metric(f"{name}/gold_margin", "nat"), cluster=cluster)
    for label, values in corpus.items():
        metric = label.split(",")[0]
        value = float(task.aggregation()[metric](values))
        yield Sample(
            "corpus", value, Metric(f"{name}/{label}", "1", _better(task, metric)), detail={"documents": len(values)}
        )


def gold_margin(sample: dict[str, Any]) -> float | None:
    """Log-likelihood of the right choice less that of the likeliest other, nats; above 0 where `acc` is 1.

    It moves before an answer flips: an early warning. None for questions without choices, or with several right ones.
    """
    found, target = sample["filtered_resps"], sample["target"]
    if not (isinstance(target, int) and len(found) > 1 and 0 <= target < len(found)):
        return None
    if not all(isinstance(each, list | tuple) and len(each) == 2 for each in found):
        return None
    likelihoods = [float(each[0]) for each in found]
    return likelihoods[target] - max(likelihoods[:target] + likelihoods[target + 1 :])


def _better(task: Any, metric: str) -> Any:
    higher = task.higher_is_better().get(metric)
    return "none" if higher is None else "higher" if higher else "lower"


class _Reduction:
    """How lm-eval's per-document results become one number in our terms: unit, reduction, value and weight."""

    def __init__(self, unit: str, reduce: Any, kind: str) -> None:
        self.unit, self.reduce, self.kind = unit, reduce, kind

    @classmethod
    def of(cls, task: Any, metric: str) -> "_Reduction | None":
        """None for an aggregation that only makes sense over the whole corpus (BLEU, F1 and the like)."""
        from lm_eval.api import metrics

        known = {
            metrics.mean: cls("1", "mean", "plain"),
            metrics.median: cls("1", "median", "plain"),
            metrics.perplexity: cls("1", "exp_mean", "loglikelihood"),
            metrics.weighted_perplexity: cls("1", "exp_mean", "weighted"),
            metrics.bits_per_byte: cls("bit/byte", "mean", "bits"),
        }
        return known.get(task.aggregation().get(metric, metrics.mean))

    def one(self, result: Any) -> tuple[float, float]:
        """Value and weight of one document."""
        if self.kind in ("weighted", "bits"):
            loglikelihood, weight = result
            scale = weight * (math.log(2) if self.kind == "bits" else 1.0)
            return -loglikelihood / scale, float(weight)
        try:
            return (-1.0 if self.kind == "loglikelihood" else 1.0) * float(result), 1.0
        except (TypeError, ValueError):
            raise WeighinError(f"lm-eval gave {result!r} where a number was expected") from None


def _detail(sample: dict[str, Any]) -> dict[str, Any]:
    """What a reader wants to see of an item: its prompt, its choices, what the model made of them."""
    arguments = list(sample["arguments"])
    first = arguments[0] if arguments else ("",)
    answers = [str(a[1]) if len(a) > 1 and isinstance(a[1], str) else "" for a in arguments]
    return {
        "doc": sample["doc_id"],
        "prompt": str(first[0]),
        "choices": answers,
        "target": str(sample["target"]),
        "responses": [_plain(r) for r in sample["filtered_resps"]],
        "prompt_hash": sample["prompt_hash"],
    }


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, bool | str | int | float) or value is None:
        return value
    return value.item() if hasattr(value, "item") else str(value)
