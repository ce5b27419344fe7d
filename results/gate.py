"""The release gate: rules that turn two variants' samples into pass, fail or inconclusive.

PASS only where the data show that the drop is below the margin; FAIL only where they show a drop that multiplicity
does not explain; else INCONCLUSIVE, never a silent pass. The release passes when every `gate` rule does: that is an
intersection-union test and needs no correction (Berger 1982), while alarms are Holm-adjusted over the rules of a role.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from weighin.results.compare import Comparison, Refusal, metrics_of, missing
from weighin.results.errors import WeighinError
from weighin.results.lookup import Side, matching, run_named, side, split_metric, unknown
from weighin.results.rules import Rule
from weighin.results.statistics import holm
from weighin.results.store import Store
from weighin.results.weighing import Evidence, allowed, amount, asks, instead, needed, weigh

__all__ = ["ALPHA", "Outcome", "Rule", "Verdict", "exit_code", "judge", "passes"]

ALPHA = 0.05

Outcome = Literal["pass", "fail", "inconclusive"]


@dataclass(frozen=True)
class Verdict:
    """What a rule came to and why; `metric` names the task too. `needs` is about how many more items would decide.

    `p_adjusted` is Holm's over the rules of the same role; None where nothing was tested. `waived` names the fields of
    the protocol that differ and were allowed to.
    """

    rule: Rule
    metric: str
    outcome: Outcome
    why: str
    comparison: Comparison | None = None
    p_adjusted: float | None = None
    needs: int | None = None
    waived: tuple[str, ...] = ()
    sides: tuple[Side, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Bench:
    """How the gate judges: against which run, what is waived, and the chance of error that one look may take.

    `against` is a run whose variants of the same names the rules' variants are held against; None: as the rules say.
    """

    against: str | None = None
    waive: Collection[str] = ()
    alpha: float = ALPHA


def judge(store: Store, rules: Sequence[Rule], run: str | None = None, bench: Bench = Bench()) -> list[Verdict]:
    """One verdict a rule and metric, on `run` (default: the newest).

    `accuracy.acc` means every task's `TASK/acc` where there is no plain `acc`. Raises `WeighinError` for names that
    the run does not know.
    """
    with store.snapshot() as held:
        home = run_named(held, run)
        asked = [_asked(rule, bench) for rule in rules]
        found = [verdict for rule in asked for verdict in _apply(held, rule, _sides(held, rule, home), bench)]
    return settle(found, bench.alpha)


def settle(found: Sequence[Verdict], alpha: float = ALPHA) -> list[Verdict]:
    """The verdicts that are still open decided together: alarms share `alpha` over the rules of a role."""
    settled = list(found)
    for role in ("gate", "watch"):
        tested = [
            i
            for i, v in enumerate(settled)
            if v.rule.role == role and v.comparison and v.comparison.p_worse is not None
        ]
        adjusted = holm([v.comparison.p_worse or 0.0 for i in tested if (v := settled[i]).comparison])
        for index, p in zip(tested, adjusted, strict=True):
            settled[index] = _decide(settled[index], p, alpha)
    return settled


def rejudge(store: Store, verdict: Verdict, sides: tuple[Side, ...], bench: Bench = Bench()) -> Verdict:
    """A verdict anew, by itself, on other evaluations: `sides` as in `Verdict`."""
    suite, metric = split_metric(verdict.metric)
    return settle([_weighed(store, verdict.rule, sides, (suite, metric), bench)], bench.alpha)[0]


def passes(verdicts: Sequence[Verdict]) -> bool:
    """Whether the release passes: there is a `gate` rule, and each of them passes."""
    return exit_code(verdicts) == 0


def exit_code(verdicts: Sequence[Verdict]) -> int:
    """0 every gate rule passes, 1 one fails, 3 otherwise; 3 as well where no gate rule was judged."""
    outcomes = [verdict.outcome for verdict in verdicts if verdict.rule.role == "gate"]
    if "fail" in outcomes:
        return 1
    return 0 if outcomes and all(outcome == "pass" for outcome in outcomes) else 3


def sentence(verdicts: Sequence[Verdict]) -> str:
    """What they mean for the release."""
    if not any(verdict.rule.role == "gate" for verdict in verdicts):
        watched = ", every rule only watches" if verdicts else ""
        return f"No verdict: the spec has no rule with the role gate{watched}."
    return {
        0: "The release passes: every gate rule does.",
        1: "The release fails: at least one gate rule does.",
        3: "No verdict yet: no gate rule fails, and not every one passes.",
    }[exit_code(verdicts)]


def _asked(rule: Rule, bench: Bench) -> Rule:
    """The rule as it is asked: against the same variant of another run, where there is one."""
    if bench.against is None or rule.limit is not None:
        return rule
    return replace(rule, against=f"{bench.against}/{rule.variant}")


def _sides(store: Store, rule: Rule, home: str) -> tuple[Side, ...]:
    """The variants that a rule speaks of, the judged one last."""
    judged = side(store, rule.variant, home)
    if rule.limit is not None:
        return (judged,)
    return side(store, rule.against, home), judged


def _apply(store: Store, rule: Rule, sides: tuple[Side, ...], bench: Bench) -> list[Verdict]:
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
        return [Verdict(rule, rule.metric, "inconclusive", "; ".join(absent), sides=sides)]
    return [_weighed(store, rule, sides, (suite, name), bench) for name in chosen]


def _weighed(store: Store, rule: Rule, sides: tuple[Side, ...], metric: tuple[str, str], bench: Bench) -> Verdict:
    """A verdict as far as it goes without the other rules."""
    name = ".".join(metric)
    found = weigh(store, rule, sides, metric, Evidence(bench.waive, 1 - bench.alpha))
    if isinstance(found, Refusal):
        return Verdict(rule, name, "inconclusive", found.reason, sides=sides)
    if found.better == "none":
        raise WeighinError(f"gate {name}: neither way is better in this metric, so no rule can judge it")
    if found.flips_worse is not None and rule.size >= 1:
        raise WeighinError(f"gate {name}: a margin of {rule.size:g} is more than every item; 0.02 is 2 points")
    why = f"{found.caveat or ''}{instead(store, found, sides[-1])}"
    verdict = Verdict(rule, name, "inconclusive", why, found, waived=found.waived, sides=sides)
    if found.caveat is not None:
        return verdict
    if found.method == "measured once":
        why = f"{sides[-1].name} and {sides[0].name} are the same checkpoint, measured once"
        return replace(verdict, outcome="pass", why=why)
    return _count(verdict, found) if found.method == "counted" else verdict


def _count(verdict: Verdict, found: Comparison) -> Verdict:
    """Bytes are counted, not estimated: the margin itself is allowed."""
    margin = allowed(verdict.rule, found)
    fine = found.drop <= margin
    where = "within" if fine else "beyond"
    sizes = (
        f"{amount(found.value_b or 0.0, found, plain=True)} against {amount(found.value_a or 0.0, found, plain=True)}"
    )
    said = "" if verdict.rule.limit is not None else f" of {amount(margin, found, plain=True)}"
    why = f"{sizes}, {where} the {'limit' if verdict.rule.limit is not None else 'margin'}{said}"
    return replace(verdict, outcome="pass" if fine else "fail", why=why)


def _decide(verdict: Verdict, p: float, alpha: float) -> Verdict:
    """Non-inferiority first, then a drop beyond chance, then what is missing."""
    found = verdict.comparison
    if found is None or found.upper is None or verdict.outcome != "inconclusive":
        return verdict
    margin, sure = allowed(verdict.rule, found), f"{100 * (1 - alpha):.3g} % sure"
    drop, bound = amount(found.drop, found), amount(found.upper, found)
    if verdict.rule.limit is not None:
        return _limited(verdict, p, (alpha, sure))
    told = f"drop {drop}, {sure} to be below {bound}"
    if found.within if found.within is not None else found.upper < margin:
        why = f"{told}: less than the margin of {amount(margin, found)}"
        return replace(verdict, outcome="pass", p_adjusted=p, why=why)
    if found.drop > 0 and p <= alpha:
        why = f"drop {drop}, not chance (p = {p:.2g} after Holm), not shown to be less than {amount(margin, found)}"
        return replace(verdict, outcome="fail", p_adjusted=p, why=why)
    needs = needed(found, margin, alpha)
    undecided = f"{told}: not less than the margin of {amount(margin, found)}, and no proven drop"
    why = f"{undecided}; {asks(found, needs, margin)}"
    return replace(verdict, p_adjusted=p, why=why, needs=needs)


def _limited(verdict: Verdict, p: float, how: tuple[float, str]) -> Verdict:
    """A variant alone against its limit."""
    found, (alpha, sure) = verdict.comparison, how
    assert found is not None and found.upper is not None, "only what was tested is decided"
    value, limit = (amount(v or 0.0, found, plain=True) for v in (found.value_b, found.value_a))
    if found.upper < 0:
        return replace(verdict, outcome="pass", p_adjusted=p, why=f"{value}, {sure} to be within the limit of {limit}")
    if found.drop > 0 and p <= alpha:
        why = f"{value}, beyond the limit of {limit}, not by chance (p = {p:.2g} after Holm)"
        return replace(verdict, outcome="fail", p_adjusted=p, why=why)
    why = f"{value}, neither shown to be within the limit of {limit} nor beyond it; more items would tell"
    return replace(verdict, p_adjusted=p, why=why)
