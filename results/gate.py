"""The release gate: rules that turn two variants' samples into pass, fail or inconclusive.

PASS only where the data show that the drop is below the margin; FAIL only where they show a drop that multiplicity
does not explain; else INCONCLUSIVE, never a silent pass. The release passes when every `gate` rule does: that is an
intersection-union test and needs no correction (Berger 1982), while alarms are Holm-adjusted over the rules of a role.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from weighin.results.compare import Comparison, Refusal, compare_metric, metrics_of, missing
from weighin.results.errors import WeighinError
from weighin.results.lookup import Side, matching, run_named, side, split_metric, unknown
from weighin.results.render import quantity
from weighin.results.statistics import holm, items_needed, normal, tango_items
from weighin.results.store import Store

ALPHA = 0.05

Outcome = Literal["pass", "fail", "inconclusive"]


@dataclass(frozen=True)
class Rule:
    """`variant` must not be worse than `against` by `margin` or more in `metric`, written SUITE.METRIC.

    The margin is in the metric's unit (0.02 is 2 points of accuracy); for an `exp_mean` metric such as perplexity it
    is relative (0.02 is 2 %, tested on the log scale). A `watch` rule is judged alike but releases nothing.
    """

    metric: str
    variant: str
    against: str = "base"
    margin: float = 0.0
    role: Literal["gate", "watch"] = "gate"

    def __post_init__(self) -> None:
        split_metric(self.metric)
        if not (math.isfinite(self.margin) and self.margin >= 0):
            raise WeighinError(f"gate {self.metric}: margin must be a number >= 0 (got {self.margin})")
        if self.variant == self.against:
            raise WeighinError(
                f"gate {self.metric}: {self.variant} is judged against itself; name another in `against`"
            )
        if self.role not in ("gate", "watch"):
            raise WeighinError(f"gate {self.metric}: role must be gate or watch (got {self.role!r})")


@dataclass(frozen=True)
class Verdict:
    """What a rule came to and why; `metric` names the task too. `needs` is about how many more items would decide.

    `p_adjusted` is Holm's over the rules of the same role; None where nothing was tested.
    """

    rule: Rule
    metric: str
    outcome: Outcome
    why: str
    comparison: Comparison | None = None
    p_adjusted: float | None = None
    needs: int | None = None


def judge(store: Store, rules: Sequence[Rule], run: str | None = None) -> list[Verdict]:
    """One verdict a rule and metric, on `run` (default: the newest).

    `accuracy.acc` means every task's `TASK/acc` where there is no plain `acc`. Raises `WeighinError` for names that
    the run does not know.
    """
    with store.snapshot() as held:
        home = run_named(held, run)
        who = {name: side(held, name, home) for rule in rules for name in (rule.against, rule.variant)}
        found = [verdict for rule in rules for verdict in _apply(held, rule, (who[rule.against], who[rule.variant]))]
    for role in ("gate", "watch"):
        tested = [
            i for i, v in enumerate(found) if v.rule.role == role and v.comparison and _p(v.comparison) is not None
        ]
        adjusted = holm([_p(found[i].comparison) or 0.0 for i in tested])
        for index, p in zip(tested, adjusted, strict=True):
            found[index] = _decide(found[index], p)
    return found


def passes(verdicts: Sequence[Verdict]) -> bool:
    """Whether the release passes: there is a `gate` rule, and each of them passes."""
    return exit_code(verdicts) == 0


def exit_code(verdicts: Sequence[Verdict]) -> int:
    """0 every gate rule passes, 1 one fails, 3 otherwise; 3 as well where no gate rule was judged."""
    outcomes = [verdict.outcome for verdict in verdicts if verdict.rule.role == "gate"]
    if "fail" in outcomes:
        return 1
    return 0 if outcomes and all(outcome == "pass" for outcome in outcomes) else 3


def _apply(store: Store, rule: Rule, sides: tuple[Side, Side]) -> list[Verdict]:
    suite, metric = split_metric(rule.metric)
    suites = {name for who in sides for name in who.cells}
    if suite not in suites:
        raise unknown("suite", suite, suites)
    names = metrics_of(store, sides, suite)
    chosen = matching(metric, names)
    absent = [why for who in sides if (why := missing(who, suite))]
    if not chosen:
        if not absent:
            raise unknown("metric", rule.metric, [f"{suite}.{name}" for name in names])
        return [Verdict(rule, rule.metric, "inconclusive", "; ".join(absent))]
    if absent:
        return [Verdict(rule, f"{suite}.{name}", "inconclusive", "; ".join(absent)) for name in chosen]
    return [_weigh(store, rule, sides, (suite, name)) for name in chosen]


def _weigh(store: Store, rule: Rule, sides: tuple[Side, Side], metric: tuple[str, str]) -> Verdict:
    name = ".".join(metric)
    found = compare_metric(store, *sides, metric)
    if isinstance(found, Refusal):
        return Verdict(rule, name, "inconclusive", found.reason)
    if found.better == "none":
        raise WeighinError(f"gate {name}: neither way is better in this metric, so no rule can judge it")
    if found.flips_worse is not None and rule.margin >= 1:
        raise WeighinError(f"gate {name}: a margin of {rule.margin:g} is more than every item; 0.02 is 2 points")
    verdict = Verdict(rule, name, "inconclusive", found.caveat or "", found)
    if found.caveat is not None:
        return verdict
    if sides[0].cells[metric[0]].evaluation_id == sides[1].cells[metric[0]].evaluation_id:
        why = f"{rule.variant} and {rule.against} are the same checkpoint, measured once"
        return replace(verdict, outcome="pass", why=why)
    return _count(verdict, found) if found.method == "counted" else verdict


def _p(found: Comparison | None) -> float | None:
    return found.p_worse if found else None


def _margin(rule: Rule, found: Comparison) -> float:
    return math.log1p(rule.margin) if found.scale == "log" else rule.margin


def _count(verdict: Verdict, found: Comparison) -> Verdict:
    """Bytes are counted, not estimated: the margin itself is allowed."""
    fine = found.drop <= verdict.rule.margin
    sizes = f"{quantity(found.value_b, found.unit)} against {quantity(found.value_a, found.unit)}"
    allowed = quantity(verdict.rule.margin, found.unit)
    why = f"{sizes}, {'within' if fine else 'beyond'} the margin of {allowed}"
    return replace(verdict, outcome="pass" if fine else "fail", why=why)


def _decide(verdict: Verdict, p: float) -> Verdict:
    """Non-inferiority first, then a drop beyond chance, then what is missing."""
    found = verdict.comparison
    if found is None or found.upper is None or verdict.outcome != "inconclusive":
        return verdict
    margin = _margin(verdict.rule, found)
    drop = f"drop {_amount(found.drop, found)}"
    bound = f"95 % sure to be below {_amount(found.upper, found)}"
    allowed = _amount(margin, found)
    if found.upper < margin:
        return replace(verdict, outcome="pass", p_adjusted=p, why=f"{drop}, {bound}: less than the margin of {allowed}")
    if found.drop > 0 and p <= ALPHA:
        why = f"{drop}, not chance (p = {p:.2g} after Holm), not shown to be less than the margin of {allowed}"
        return replace(verdict, outcome="fail", p_adjusted=p, why=why)
    needs = _needs(found, margin)
    more = f"needs about {needs} more items" if needs else "more items of this kind would hardly decide it"
    why = f"{drop}, {bound}: not less than the margin of {allowed}, and no proven drop; {more}"
    return replace(verdict, p_adjusted=p, why=why, needs=needs)


def _needs(found: Comparison, margin: float) -> int | None:
    """About how many more items would show the drop seen so far to be below the margin, with 80 % power.

    None where that drop is not below the margin.
    """
    drop = max(found.drop, 0.0)
    if drop >= margin or found.mde is None:
        return None
    if found.flips_worse is not None and found.flips_better is not None:
        rate = max(found.flips_worse + found.flips_better, 1) / found.n
        shares = found.flips_worse / found.n, found.flips_better / found.n
        # the formula plans for 80 % power; the corrected test itself asks more where flips are few
        least = tango_items(*shares, margin, normal(1 - ALPHA))
        total = max(items_needed(rate, margin, drop), least) * found.design_effect
    else:
        total = found.n * (found.mde / (margin - drop)) ** 2
    return max(math.ceil(total) - found.n, 1)


def _amount(value: float, found: Comparison) -> str:
    """A drop in words: points for shares, per cent for ratios."""
    if found.scale == "log":
        return f"{math.expm1(value) * 100:.3g} %"
    if found.flips_worse is not None:
        return f"{value * 100:.2f} points"
    return quantity(value, found.unit)
