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
    """One row a stage, the base first; the losses of the stages add up to the last row's loss so far."""
    labels = {card["variant_key"]: card["variant"] for card in reversed(board.cards)}
    so_far = totals(board, steps)
    rows = []
    for place, step in enumerate(steps):
        label = labels.get(step["variant_key"])
        rows.append(
            {
                "variant": label or step["variant_key"][:12],
                "stage": step["stage"] or "base",
                "loss of the stage": _loss(board, label, "parent", _step(so_far, place)) if step["stage"] else MISSING,
                "loss so far": _loss(board, label, "root", so_far[place]) if step["stage"] else MISSING,
                "took": quantity(step["made_seconds"], "s"),
                "energy": _energy(step),
                "peak memory": quantity(step["made_peak_bytes"], "B"),
                "on disk": quantity(step["disk_bytes"], "B"),
                "made with": given(step["params"]),
            }
        )
    return pd.DataFrame(rows, dtype="object")


def totals(board: Board, steps: list[Row]) -> list[float | None]:
    """The loss from the base to each step, nat a token; None where it is not known.

    Of a step that no label of the run names it is what its child lost in all less what the child's own stage lost.
    """
    labels = {card["variant_key"]: card["variant"] for card in reversed(board.cards)}
    names = [labels.get(step["variant_key"]) for step in steps]
    found = [0.0 if not step["stage"] else _value(board, name, "root") for step, name in zip(steps, names, strict=True)]
    for place in range(len(steps) - 2, 0, -1):
        after, own = found[place + 1], _value(board, names[place + 1], "parent")
        if found[place] is None and after is not None and own is not None:
            found[place] = after - own
    return found


def _step(so_far: list[float | None], place: int) -> float | None:
    before, after = so_far[place - 1], so_far[place]
    return None if before is None or after is None else after - before


def given(params: Any) -> str:
    """A stage's parameters in a line."""
    known = params if isinstance(params, dict) else {}
    return ", ".join(f"{name} {value}" for name, value in known.items() if value not in (None, "", []))


def _energy(step: Row) -> str:
    if step["made_joules"] is None:
        return MISSING
    return f"{quantity(step['made_joules'], 'J')} · {step['made_joules_source']}"


def _loss(board: Board, label: str | None, kin: str, reckoned: float | None) -> str:
    """A loss as it was measured, or else as it follows from those that were."""
    row = board.index.get((label or "", "fidelity", f"{LOSS}_{kin}"))
    if row is not None and row["value"] is not None:
        return interval(row["value"], row["ci_low"], row["ci_high"], row["unit"] or "1")
    if reckoned is not None:
        return f"{quantity(reckoned, 'nat/token')} · by difference"
    whole = row or board.index.get((label or "", "fidelity", ALL))
    return str(whole["status"]) if whole else "not measured"


def sums(board: Board, steps: list[Row]) -> str | None:
    """That the stages' losses add up, with the figures; None where the chain is short or a loss is not known."""
    so_far = totals(board, steps)
    parts = [_step(so_far, place) for place in range(1, len(steps))]
    known = [part for part in parts if part is not None]
    if len(parts) < 2 or len(known) < len(parts):
        return None
    added = " + ".join(f"{part:.4f}" for part in known).replace("+ -", "- ")
    return f"Loss, the logarithm of the ratio of perplexities: {added} = {sum(known):.4f} nat a token."


def _value(board: Board, label: str | None, kin: str) -> float | None:
    row = board.index.get((label or "", "fidelity", f"{LOSS}_{kin}"))
    return None if row is None or row["value"] is None else float(row["value"])


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
