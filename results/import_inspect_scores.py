"""Scores of an Inspect log: each sample's by scorer, and how a metric is made of them."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from weighin.results.foreign import figure
from weighin.results.outside import name, number, prose, table, value_hash, whole
from weighin.results.records import Better, Metric, Sample

MEANS = {"accuracy", "mean"}
"""Metrics that are the mean of their samples' values."""
ERRORS = ("stderr", "bootstrap_stderr", "bootstrap_std")
"""Metrics that are the standard error of the mean beside them; `bootstrap_std` is the name of before 0.3.10."""
SPREADS = {"std", "var"}
WORDS = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0, "yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}
"""What a word is worth, as in inspect_ai's `value_to_float`."""
ALONE = "88F74D2C"
"""The name of the scorer in logs of before there could be several."""


class Scored(NamedTuple):
    """A sample: the hash of what was asked, its epoch, its scores' values by scorer, and why it has none."""

    item: str
    id: str
    epoch: int
    values: Mapping[str, Any]
    error: str | None


def taken(samples: Iterable[Mapping[str, Any]]) -> list[Scored]:
    """What is needed of each sample; the rest (messages, events) is let go at once. Equal questions are told apart."""
    found = []
    ids: dict[str, list[str]] = {}
    for sample in samples:
        scores = sample.get("scores")
        if not isinstance(scores, dict):
            scores = {ALONE: sample["score"]} if isinstance(sample.get("score"), dict) else {}
        values = {str(scorer): table(score).get("value") for scorer, score in scores.items()}
        message = table(sample.get("error")).get("message")
        error = None if message is None else name(message)
        item, id = _item(sample), name(sample.get("id"))
        same = ids.setdefault(item, [])
        if id not in same:
            same.append(id)
        item = item if same[0] == id else f"{item}#{same.index(id) + 1}"
        found.append(Scored(item, id, whole(sample.get("epoch")) or 1, values, error))
    return found


def _item(sample: Mapping[str, Any]) -> str:
    """A hash of what was asked and what is right; messages count by role and content, not by their random ids."""
    asked = sample.get("input")
    if isinstance(asked, list):
        asked = [[message.get("role"), message.get("content")] for message in asked if isinstance(message, dict)]
    return value_hash([asked, sample.get("choices"), sample.get("target")])[:32]


def worth(value: Any) -> float | None:
    """A score's value as a number; None where it has none (not scored, a list, an unknown word)."""
    if isinstance(value, str):
        if value in WORDS:
            return WORDS[value]
        try:
            return WORDS.get(value.lower(), number(float(value)))
        except ValueError:
            return WORDS.get(value.lower())
    return number(value)


def figures(
    task: str, results: Mapping[str, Any], samples: list[Scored], reductions: Any, notes: list[str]
) -> Iterator[Sample]:
    """Every metric of every score, by its samples where they make it up."""
    scores = _scores(results)
    for score in scores:
        metrics = table(score.get("metrics"))
        error = next((v for key in ERRORS if (v := number(table(metrics.get(key)).get("value"))) is not None), None)
        for key, stated in metrics.items():
            kind = str(table(stated).get("name") or key).rpartition("/")[2]
            if kind in ERRORS:
                continue
            label = str(key) if len(scores) == 1 else f"{key},{_title(score, scores)}"
            metric = Metric(name(f"{task}/{label}"), "1", _better(kind))
            value = number(table(stated).get("value"))
            kept = _kept(metric, value, score, samples, reductions) if kind in MEANS else None
            if kept:
                yield from kept
                continue
            if samples and kind in MEANS and value is not None:
                notes.append(
                    f"{metric.name} is kept as the figure that the log states: no mean of its samples gives it"
                )
            count = whole(score.get("scored_samples"))
            yield figure(metric, value, error=error if kind in MEANS else None, n=count)


def _scores(results: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The scores of a log; of one of version 1 its only one."""
    given = results.get("scores")
    if isinstance(given, list):
        return [score for score in given if isinstance(score, dict)]
    if isinstance(results.get("scorer"), dict):
        return [{**results["scorer"], "metrics": results.get("metrics") or results["scorer"].get("metrics")}]
    return []


def _title(score: Mapping[str, Any], scores: list[Mapping[str, Any]]) -> str:
    """The score's name, with its reducer where the name is not enough."""
    own = str(score.get("name"))
    alike = sum(str(other.get("name")) == own for other in scores)
    return own if alike == 1 else f"{own},{score.get('reducer') or score.get('scorer')}"


def _better(kind: str) -> Better:
    return "higher" if kind in MEANS else "none"


def _kept(
    metric: Metric, value: float | None, score: Mapping[str, Any], samples: list[Scored], reductions: Any
) -> list[Sample] | None:
    """The samples behind a mean, or their values reduced over epochs; None where neither makes it up."""
    if value is None:
        return None
    plain = list(_plain(metric, score, samples))
    if _makes_up(plain, value):
        return plain
    reduced = list(_reduced(metric, score, samples, reductions))
    return reduced if _makes_up(reduced, value) else None


def _makes_up(samples: list[Sample], value: float) -> bool:
    """Whether the mean over items of the mean over their repetitions is `value`."""
    by_item: dict[str, list[float]] = {}
    for sample in samples:
        if sample.value is not None:
            by_item.setdefault(sample.item, []).append(sample.value)
    if not by_item:
        return False
    mean = math.fsum(math.fsum(values) / len(values) for values in by_item.values()) / len(by_item)
    return math.isclose(mean, value, rel_tol=1e-6, abs_tol=1e-9)


def _own(score: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
    """A score's value among those of a sample: by its name, by its scorer's, or as a member of its scorer's object."""
    own, scorer = str(score.get("name")), str(score.get("scorer") or score.get("name"))
    held = values.get(scorer, values.get(own, values.get(ALONE)))
    return held.get(own) if isinstance(held, dict) else held


def _plain(metric: Metric, score: Mapping[str, Any], samples: list[Scored]) -> Iterator[Sample]:
    seen: set[tuple[str, int]] = set()
    for sample in samples:
        item, rep = sample.item, sample.epoch
        while (item, rep) in seen:  # the same id twice, as after a retry
            rep += 1_000
        seen.add((item, rep))
        value = worth(_own(score, sample.values))
        reason = None if value is not None else sample.error or "not scored"
        yield Sample(item, value, metric, rep=rep, source="imported", reason=reason, detail={"id": sample.id})


def _reduced(metric: Metric, score: Mapping[str, Any], samples: list[Scored], reductions: Any) -> Iterator[Sample]:
    """One value a sample, as the log's own reducer made it of the epochs."""
    items = {sample.id: sample.item for sample in samples}
    own, scorer, reducer = score.get("name"), score.get("scorer"), score.get("reducer")
    for group in reductions if isinstance(reductions, list) else ():
        group = table(group)
        if group.get("scorer") not in (own, scorer) or group.get("reducer") not in (reducer, None):
            continue
        members = group.get("samples")
        for member in members if isinstance(members, list) else ():
            value = table(member).get("value")
            id = name(table(member).get("sample_id"))
            held = value.get(str(own)) if isinstance(value, dict) else value
            reason = None if worth(held) is not None else "not scored"
            detail = prose({"id": id, "reducer": reducer})
            yield Sample(items.get(id, id), worth(held), metric, source="imported", reason=reason, detail=detail)
        return
