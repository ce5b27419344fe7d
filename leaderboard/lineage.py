"""How a variant came to be, a row a stage: what it cost to make, what it lost, what it weighs. No Streamlit."""

from typing import Any

import pandas as pd

from weighin.leaderboard.frames import ALL, Board, Row
from weighin.results.render import MISSING, interval, quantity
from weighin.results.store import Store

LOSS = "ln_ppl_ratio"
"""The loss that adds up along a chain: the mean logarithm of the ratio of perplexities, nat a token (fidelity)."""


def chain(store: Store, key: str, machine: str) -> list[Row]:
    """A checkpoint's ancestors from its base on, itself last, each with what it turned out to be on the machine."""
    return store.rows(
        """with recursive up as (
               select variant_key, parent_key, 0 as back from variants where variant_key = $key
               union all
               select v.variant_key, v.parent_key, back + 1 from variants v join up on v.variant_key = up.parent_key)
           select v.*, i.parameters, i.disk_bytes, i.memory_bytes, i.form, i.kernel, i.distance
           from up join variants v using (variant_key)
           left join identities i on i.variant_key = v.variant_key and i.machine_key = $machine
           order by back desc""",
        {"key": key, "machine": machine},
    )


def table(board: Board, steps: list[Row]) -> pd.DataFrame:
    """One row a stage, the base first; the losses of the stages that were measured add up to the last row's total."""
    labels = {card["variant_key"]: card["variant"] for card in reversed(board.cards)}
    rows = []
    for step in steps:
        label = labels.get(step["variant_key"])
        rows.append(
            {
                "variant": label or step["variant_key"][:12],
                "stage": step["stage"] or "base",
                "made with": given(step["params"]),
                "took": quantity(step["made_seconds"], "s"),
                "energy": _energy(step),
                "peak memory": quantity(step["made_peak_bytes"], "B"),
                "on disk": quantity(step["disk_bytes"], "B"),
                "loss of the stage": _loss(board, label, "parent") if step["stage"] else MISSING,
                "loss so far": _loss(board, label, "root") if step["stage"] else MISSING,
            }
        )
    return pd.DataFrame(rows, dtype="object")


def given(params: Any) -> str:
    """A stage's parameters in a line."""
    known = params if isinstance(params, dict) else {}
    return ", ".join(f"{name} {value}" for name, value in known.items() if value not in (None, "", []))


def _energy(step: Row) -> str:
    if step["made_joules"] is None:
        return MISSING
    return f"{quantity(step['made_joules'], 'J')} · {step['made_joules_source']}"


def _loss(board: Board, label: str | None, kin: str) -> str:
    if label is None:
        return "not in this run"
    row = board.index.get((label, "fidelity", f"{LOSS}_{kin}"))
    if row is None:
        whole = board.index.get((label, "fidelity", ALL))
        return str(whole["status"]) if whole else "not measured"
    if row["value"] is None:
        return str(row["status"])
    return interval(row["value"], row["ci_low"], row["ci_high"], row["unit"] or "1")


def sums(board: Board, steps: list[Row]) -> str | None:
    """Whether the stages' losses add up, in a sentence; None where a stage has none."""
    labels = {card["variant_key"]: card["variant"] for card in reversed(board.cards)}
    parts = [_value(board, labels.get(step["variant_key"]), "parent") for step in steps if step["stage"]]
    whole = _value(board, labels.get(steps[-1]["variant_key"]), "root") if steps else None
    known = [part for part in parts if part is not None]
    if whole is None or len(known) < len(parts) or len(parts) < 2:
        return None
    added = " + ".join(f"{part:.4f}" for part in known)
    return f"Loss, ln of the perplexity ratio, nat a token: {added} = {sum(known):.4f}; measured at once {whole:.4f}."


def _value(board: Board, label: str | None, kin: str) -> float | None:
    row = board.index.get((label or "", "fidelity", f"{LOSS}_{kin}"))
    return None if row is None else row["value"]


def card(row: Row) -> pd.DataFrame:
    """What a variant turned out to be when it was reloaded from disk, a fact a row."""
    facts = {
        "key": row["variant_key"] or MISSING,
        "parameters": f"{row['parameters']:,}" if row["parameters"] is not None else MISSING,
        "on disk": quantity(row["disk_bytes"], "B"),
        "resident after a forward": quantity(row["memory_bytes"], "B"),
        "numbers by type": ", ".join(f"{name} {count:,}" for name, count in (row["dtypes"] or {}).items()) or MISSING,
        "form": _form(row["form"]),
        "kernel": row["kernel"] or MISSING,
        "zeros": f"{row['sparsity'] * 100:.1f} %" if row["sparsity"] is not None else MISSING,
        "distance from its parent": f"{row['distance']:.3g}" if row["distance"] is not None
        else row["distance_reason"] or "a base has none" if not row["stage"] else row["distance_reason"] or MISSING,
        "served": ", ".join(f"{name} {value}" for name, value in (row["serving"] or {}).items()) or "plainly",
    }  # fmt: skip
    return pd.DataFrame({"what": list(facts), "found": list(facts.values())}, dtype="object")


def _form(form: str | None) -> str:
    told = {
        "packed": "packed: real, the weights are stored and run in fewer bits",
        "dense": "dense: real, full-size weights",
        "simulated": "simulated: runs as dense weights, so its latency, memory and energy say nothing of the format",
    }
    return told.get(form or "", form or MISSING)


def figures(board: Board, variant: str) -> list[Row]:
    """The variant's rows of `scores`."""
    return [row for row in board.scores if row["variant"] == variant]
