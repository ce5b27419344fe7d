"""The items that changed the most between two evaluations: what a reader of a verdict wants to see."""

from dataclasses import dataclass
from typing import Any

from weighin.results.store import Store


@dataclass(frozen=True)
class Flip:
    """An item that was right and is wrong now: its prompt, what was right, and by how much its margin fell, nats."""

    item: str
    prompt: str
    target: str
    fell: float | None


def worst_flips(store: Store, metric: str, ids: tuple[str, str], most: int = 5) -> list[Flip]:
    """The items of a binary metric, right in evaluation `ids[0]` and wrong in `ids[1]`, those whose gold margin fell
    the most first; at most so many."""
    margin = metric.rpartition("/")[0] + "/gold_margin"
    rows = store.rows(
        """with a as (select * from item_values where evaluation_id = $a and metric = $metric),
                b as (select * from item_values where evaluation_id = $b and metric = $metric),
                ma as (select item, value from item_values where evaluation_id = $a and metric = $margin),
                mb as (select item, value from item_values where evaluation_id = $b and metric = $margin),
                told as (select item, any_value(detail) as detail from samples
                         where evaluation_id = $b and detail::varchar <> '{}' group by item)
           select item, ma.value - mb.value as fell, told.detail
           from a join b using (item) left join ma using (item) left join mb using (item) left join told using (item)
           where a.value = 1 and b.value = 0 order by fell desc nulls last, item limit $most""",
        {"a": ids[0], "b": ids[1], "metric": metric, "margin": margin, "most": most},
    )
    return [_flip(row) for row in rows]


def _flip(row: dict[str, Any]) -> Flip:
    detail = row["detail"] if isinstance(row["detail"], dict) else {}
    target, choices = str(detail.get("target", "")), detail.get("choices") or []
    if target.isdigit() and int(target) < len(choices):
        target = str(choices[int(target)])
    return Flip(row["item"], str(detail.get("prompt", "")), target.strip(), row["fell"])
