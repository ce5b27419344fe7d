"""Single items for whoever wants to see them: what a model was asked and gave, and where two differ. Always a few."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from weighin.results.store import Store

MOST = 200
"""Items that one query brings at most."""

# What a suite tells of an item stands in the detail of one of its metrics; it holds for all of them.
_TOLD = """select item, arg_max(detail, length(detail::varchar)) as detail from samples
           where evaluation_id = {which} and detail::varchar <> '{{}}' group by item"""


@dataclass(frozen=True)
class Answers:
    """One item as one variant answered it. `scores` are log-likelihoods in nats, one a choice; none for free text."""

    text: str
    scores: tuple[float, ...] = ()


@dataclass(frozen=True)
class Item:
    """An item that two variants were measured on: `a` and `b` are the metric's values, `gave` what they answered."""

    item: str
    a: float | None
    b: float | None
    prompt: str
    choices: tuple[str, ...]
    target: str
    gave: tuple[Answers, Answers]

    @property
    def way(self) -> str:
        """What happened to it, in a word or two."""
        if self.a is None or self.b is None:
            return "on one side only"
        return "same" if self.a == self.b else "changed"


@dataclass(frozen=True)
class Output:
    """What one variant gave for an item."""

    item: str
    prompt: str
    output: str
    target: str


def differing(store: Store, metric: str, ids: tuple[str, str], search: str = "", most: int = MOST) -> list[Item]:
    """Items whose value differs between two evaluations, the largest differences first, at most so many.

    `search` keeps those whose prompt, choices, answers or name hold it, whatever its case.
    """
    rows = store.rows(
        f"""with a as (select item, value from item_values where evaluation_id = $a and metric = $metric),
                b as (select item, value from item_values where evaluation_id = $b and metric = $metric),
                ta as ({_TOLD.format(which="$a")}), tb as ({_TOLD.format(which="$b")})
           select item, a.value as a, b.value as b, ta.detail as told_a, tb.detail as told_b
           from a full join b using (item) left join ta using (item) left join tb using (item)
           where a.value is distinct from b.value and ($search = '' or contains(
               lower(concat_ws(' ', item, ta.detail::varchar, tb.detail::varchar)), lower($search)))
           order by abs(a.value - b.value) desc nulls last, item limit $most""",
        {"a": ids[0], "b": ids[1], "metric": metric, "search": search, "most": most},
    )
    return [_item(row) for row in rows]


def outputs(store: Store, evaluation: str, search: str = "", most: int = MOST) -> list[Output]:
    """What a variant gave under one suite, by item, at most so many; none where the suite keeps no text."""
    rows = store.rows(
        f"""with told as ({_TOLD.format(which="$which")})
           select item, detail from told
           where $search = '' or contains(lower(concat_ws(' ', item, detail::varchar)), lower($search))
           order by item limit $most""",
        {"which": evaluation, "search": search, "most": most},
    )
    found = []
    for row in rows:
        detail = _detail(row["detail"])
        said = _answers(detail).text
        if said:
            prompt = str(detail.get("prompt") or row["item"])
            found.append(Output(row["item"], prompt, said, _target(detail)))
    return found


def _item(row: dict[str, Any]) -> Item:
    one, two = _detail(row["told_a"]), _detail(row["told_b"])
    whole = two or one
    choices = tuple(str(choice) for choice in _listed(whole.get("choices")))
    prompt = str(whole.get("prompt") or row["item"])
    return Item(row["item"], row["a"], row["b"], prompt, choices, _target(whole), (_answers(one), _answers(two)))


def _detail(told: Any) -> dict[str, Any]:
    return told if isinstance(told, dict) else {}


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else []


def _target(detail: dict[str, Any]) -> str:
    target, choices = str(detail.get("target", "")), _listed(detail.get("choices"))
    if target.isdigit() and int(target) < len(choices):
        target = str(choices[int(target)])
    return target.strip()


def _answers(detail: dict[str, Any]) -> Answers:
    """The likeliest choice with the log-likelihood of each, or else the text that was generated."""
    responses, choices = _listed(detail.get("responses")), _listed(detail.get("choices"))
    scores = tuple(float(r[0]) for r in responses if isinstance(r, list) and r and isinstance(r[0], int | float))
    if scores and len(scores) == len(choices):
        return Answers(str(choices[max(range(len(scores)), key=scores.__getitem__)]).strip(), scores)
    if scores:  # a whole text's likelihood: nothing was chosen
        return Answers("", scores)
    texts = responses or _listed(detail.get("texts")) or _listed(detail.get("answers"))
    return Answers("\n".join(map(str, texts)) if texts else str(detail.get("reply") or ""))
