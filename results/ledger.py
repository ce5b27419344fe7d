"""What the gate found is kept: every verdict with its evidence, what was waived, and which run was green last."""

import dataclasses
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from weighin.results.errors import WeighinError
from weighin.results.gate import Verdict
from weighin.results.rows import VerdictRow
from weighin.results.store import Store
from weighin.results.watch import Watched


def keep(
    store: Store,
    run: str,
    verdicts: Sequence[Verdict],
    *,
    against: str | None = None,
    look: int = 1,
    watched: Sequence[Watched] = (),
) -> None:
    """Keep the verdicts of one call of the gate on `run`; `against` is the run that the others are of, None its own.

    `watched` is what a night found beside its rules: a run is green where this passes, too.
    """
    call, now = uuid.uuid4().hex, datetime.now(UTC)
    said = [*map(figures, verdicts), *map(_seen, watched)]
    store.add_verdicts(
        [
            VerdictRow(
                judgement_id=call,
                position=position,
                judged_at=now,
                run_id=run,
                against_run=against,
                look=look if position < len(verdicts) else 1,
                **each,
            )
            for position, each in enumerate(said)
        ]
    )


def figures(verdict: Verdict) -> dict[str, Any]:
    """A verdict with its rule and evidence, as JSON values."""
    return {
        "metric": verdict.metric,
        "rule": dataclasses.asdict(verdict.rule),
        "outcome": verdict.outcome,
        "why": verdict.why,
        "waived": list(verdict.waived),
        "evidence": evidence(verdict),
    }


def _seen(watched: Watched) -> dict[str, Any]:
    return {
        "metric": watched.name,
        "rule": {"metric": watched.name, "variant": watched.variant, "role": "gate", "watch": watched.kind},
        "outcome": watched.outcome,
        "why": watched.why,
        "waived": [],
        "evidence": watched.evidence | {"changed": [str(change) for change in watched.changes]},
    }


def evidence(verdict: Verdict) -> dict[str, Any]:
    """The figures behind a verdict, as JSON values."""
    found = dataclasses.asdict(verdict.comparison) if verdict.comparison else {}
    return found | {"p_adjusted": verdict.p_adjusted, "needs": verdict.needs}


def last_green(store: Store, spec_name: str, machine_key: str | Sequence[str], before: str | None = None) -> str:
    """The newest run of a spec on a machine whose newest judgement passes every gate rule; older than run `before`.

    `machine_key` may be several, those of a class. Raises WeighinError where there is none.
    """
    rows = store.rows(
        """with newest as (
               select v.*, r.started_at from verdicts v join runs r using (run_id)
               where r.spec_name = ? and list_contains(?, r.machine_key)
               qualify rank() over (partition by v.run_id order by v.judged_at desc, v.judgement_id) = 1)
           select run_id from newest
           where started_at < coalesce((select started_at from runs where run_id = ?), 'infinity'::timestamptz)
               and json_extract_string(rule, '$.role') = 'gate'
           group by run_id, started_at having bool_and(outcome = 'pass') order by started_at desc limit 1""",
        [spec_name, [machine_key] if isinstance(machine_key, str) else list(machine_key), before],
    )
    if not rows:
        raise WeighinError(
            f"{store.path}: no run of {spec_name} on this machine has passed the gate yet; judge one first: "
            f"weighin gate {spec_name}"
        )
    return str(rows[0]["run_id"])
