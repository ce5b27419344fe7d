"""What a gate rule looks at: two variants paired, one measured beside its parent, or one alone against a limit."""

import dataclasses
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from weighin.results.alone import hold
from weighin.results.builds import over_builds
from weighin.results.compare import Comparison, Refusal, missing, pair_builds
from weighin.results.difference import NOT_INTERLEAVED, measure
from weighin.results.errors import WeighinError
from weighin.results.lookup import Side
from weighin.results.pairs import Pairs
from weighin.results.render import quantity
from weighin.results.rules import Rule
from weighin.results.statistics import items_needed, normal, tango_items
from weighin.results.store import Store


@dataclass(frozen=True)
class Evidence:
    """Which unlike fields are waived, and the level of the one-sided limit."""

    waive: Collection[str] = ()
    level: float = 0.95


def weigh(
    store: Store, rule: Rule, sides: tuple[Side, ...], metric: tuple[str, str], how: Evidence
) -> Comparison | Refusal:
    """The evidence that a rule asks for in one `(suite, metric)`, or why there is none. The judged side is the last."""
    suite, name = metric
    judged = sides[-1]
    why = missing(judged, suite)
    if why is not None:
        return Refusal(suite, name, why)
    evaluation = str(judged.cells[suite].evaluation_id)
    if rule.limit is not None:
        return hold(store, metric, evaluation, rule.limit, how.level)
    beside = store.rows(
        "select beside, neutral from metrics where evaluation_id = ? and metric = ?", [evaluation, name]
    )
    if beside and beside[0]["beside"] is not None:
        return _beside(store, rule, sides, metric, (beside[0]["beside"], beside[0]["neutral"], how.level))
    absent = missing(sides[0], suite)
    if absent is not None:
        return Refusal(suite, name, absent)
    builds = pair_builds(store, (sides[0], judged), metric, how.waive)
    return builds if isinstance(builds, Refusal) else _paired(builds, rule, sides, how)


def _paired(builds: list[Pairs], rule: Rule, sides: tuple[Side, ...], how: Evidence) -> Comparison:
    found, suite = compared(builds, rule, how.level), builds[0].suite
    same = sides[0].cells[suite].evaluation_id == sides[1].cells[suite].evaluation_id
    if same and not found.caveat and len(builds) == 1:
        return dataclasses.replace(found, method="measured once")
    return found


def compared(builds: Sequence[Pairs], rule: Rule, level: float) -> Comparison:
    """Two variants paired, once for each build, with the one-sided limit at `level`, and whether a margin that is a
    share is kept."""
    found = over_builds([measure(pairs, level) for pairs in builds], level)
    if rule.share and found.caveat is None and found.method != "counted" and found.scale == "linear":
        # a share of the other's value: is b within (1 ± share) a? The other's own noise is part of the question.
        sign = -1.0 if found.better == "lower" else 1.0
        held = [dataclasses.replace(pairs, a=pairs.a * (1 - sign * rule.size)) for pairs in builds]
        eased = over_builds([measure(pairs, level) for pairs in held], level)
        return dataclasses.replace(found, within=eased.upper is not None and eased.upper < 0)
    return found


def _beside(
    store: Store, rule: Rule, sides: tuple[Side, ...], metric: tuple[str, str], how: tuple[str, float, float]
) -> Comparison | Refusal:
    """A figure that compares with a relative already; `how` is which one, the neutral value and the level."""
    kin, neutral, level = how
    against, judged = sides
    held = store.variant(judged.variant_key or "")
    relative = None if held is None else held.parent_key if kin == "parent" else held.root_key
    if relative is None or relative != against.variant_key:
        reason = f"this metric compares {judged.name} with its {kin}, which {against.name} is not"
        return Refusal(*metric, reason)
    return hold(store, metric, str(judged.cells[metric[0]].evaluation_id), neutral, level)


def instead(store: Store, found: Comparison, judged: Side) -> str:
    """Which metrics of the suite were measured in turns with a relative, where these were not; else an empty text."""
    if found.caveat != NOT_INTERLEAVED:
        return ""
    rows = store.rows(
        "select metric, beside from metrics where evaluation_id = ? and beside is not null order by place, metric",
        [str(judged.cells[found.suite].evaluation_id)],
    )
    named = " or ".join(f"{found.suite}.{row['metric']} (beside its {row['beside']})" for row in rows)
    return f"; ask {named}, measured in turns" if named else ""


def allowed(rule: Rule, found: Comparison) -> float:
    """The margin on the scale of the comparison's drop. Raises WeighinError for a share of nothing."""
    if found.scale == "log":
        return math.log1p(rule.size)
    if not rule.share:
        return rule.size
    if not found.value_a:
        raise WeighinError(f"gate {found.name}: a margin of {rule.margin} of 0 is nothing; give it in {found.unit}")
    return rule.size * abs(found.value_a)


def needed(found: Comparison, margin: float, alpha: float) -> int | None:
    """About how many more items would show the drop seen so far to be below the margin, with 80 % power.

    None where no number of items would, or where chance in the making weighs more than the items.
    """
    drop = max(found.drop, 0.0)
    if drop >= margin or found.mde is None or found.between > 0.5:
        return None
    if found.builds == 1 and found.flips_worse is not None and found.flips_better is not None:
        rate = max(found.flips_worse + found.flips_better, 1) / found.n
        shares = found.flips_worse / found.n, found.flips_better / found.n
        # the formula plans for 80 % power; the corrected test itself asks more where flips are few
        least = tango_items(*shares, margin, normal(1 - alpha))
        total = max(items_needed(rate, margin, drop), least) * found.design_effect
    else:
        total = found.n * (found.mde / (margin - drop)) ** 2
    return max(math.ceil(total) - found.n, 1) if math.isfinite(total) else None


def asks(found: Comparison, needs: int | None, margin: float) -> str:
    """What an undecided rule asks for, in words; `needs` is from `needed`."""
    if found.between > 0.5:
        return f"needs more builds: {found.between:.0%} of the variance lies between these {found.builds}"
    if needs is None and found.drop >= margin:
        return "the drop seen is not within the margin, so more items would sooner show a fail"
    return f"needs about {needs} more items" if needs else "more items of this kind would hardly decide it"


def amount(value: float, found: Comparison, *, plain: bool = False) -> str:
    """A drop in words: points for shares, per cent for ratios; `plain`: a value of the metric itself."""
    if found.scale == "log" and not plain:
        return f"{math.expm1(value) * 100:.3g} %"
    if found.flips_worse is not None and not plain:
        return f"{value * 100:.2f} points"
    return quantity(value, found.unit)
