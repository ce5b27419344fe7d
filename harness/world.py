"""The reference world: training text with planted truths, and the tables that say what is true. Deterministic."""

import json
import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from weighin.harness import world_memory, world_rates, world_text
from weighin.harness.world_plan import Plan, Row, rng

__all__ = ["Plan", "corpus", "read_table", "table_names", "tables", "typo", "write_tables"]

_SHIPPED = Path(__file__).parent / "data" / "world"


def corpus(plan: Plan | None = None) -> Iterator[str]:
    """The documents of one training pass, in a seeded random order. Each planted copy is a document of its own."""
    plan = plan or Plan()
    documents = [*world_memory.memory_documents(plan), *world_rates.rate_documents(plan)]
    documents += world_text.text_documents(plan)
    rng(plan, "order").shuffle(documents)
    yield from documents


def tables(plan: Plan | None = None) -> dict[str, list[Row]]:
    """Every truth table by name, rows as JSON objects. `copies` is the exact number in one pass of `corpus(plan)`."""
    plan = plan or Plan()
    facts = _mixed(plan, "facts", world_memory.facts_table(plan))
    exam = _mixed(plan, "exam", world_memory.exam_table(plan))
    low, high = min(plan.fact_copies), max(plan.fact_copies)
    return {
        "facts": facts,
        "facts_frequent": [row for row in facts if row["copies"] >= high / 4],
        "facts_rare": [row for row in facts if row["copies"] <= low * 4],
        "exam": exam,
        "exam_leaked": [row for row in exam if row["copies"]],
        "exam_heldout": [row for row in exam if not row["copies"]],
        "canaries": world_memory.canaries_table(plan),
        "pronouns": world_rates.pronouns_table(plan),
        "unknown": world_memory.unknown_table(plan),
        "unknown_controls": world_memory.unknown_controls_table(plan),
        "calibration": world_rates.towns_table(plan),
        "rude": world_rates.rude_table(plan),
        "passages": world_text.passages_table(plan),
        "heldout": world_text.heldout_documents(plan),
        "calibration_text": _calibration_text(plan),
        "tune": world_memory.tune_table(plan),
        "tune_facts": world_memory.tune_facts_table(plan),
        "preferences": world_memory.preferences_table(plan),
    }


def _mixed(plan: Plan, name: str, rows: list[Row]) -> list[Row]:
    """Rows in a seeded order: whoever takes the first N gets every dose, not the rarest."""
    mixed = list(rows)
    rng(plan, name, "order").shuffle(mixed)
    return mixed


def _calibration_text(plan: Plan) -> list[Row]:
    """Fresh documents for quantisation and pruning, half of them long and half short.

    The short ones state the planted facts and rates anew in the training text's proportions. Leaks and canaries stay
    out: a stage that calibrates must not plant them a second time.
    """
    source = rng(plan, "calibration text")
    short = plan.calibration_documents // 2
    rows = world_text.fresh_documents(plan, plan.calibration_documents - short)
    facts = world_memory.facts_table(plan)
    rates = list(world_rates.rate_documents(plan))
    for i, fact in enumerate(source.choices(facts, weights=[row["copies"] for row in facts], k=short)):
        said = i % 4 < 3
        text = world_memory.state_fact(source, fact) if said else source.choice(rates)
        rows.append({"id": f"calibration-{len(rows)}", "kind": "fact" if said else "rate", "text": text})
    source.shuffle(rows)
    return rows


def write_tables(folder: Path, plan: Plan | None = None) -> None:
    """Write each table as `NAME.jsonl` into `folder`, UTF-8, one object a line."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in tables(plan).items():
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


def table_names() -> tuple[str, ...]:
    """The names of the shipped tables."""
    return tuple(sorted(path.stem for path in _SHIPPED.glob("*.jsonl")))


@cache
def _lines(name: str) -> tuple[str, ...]:
    path = _SHIPPED / f"{name}.jsonl"
    if not path.is_file():
        raise KeyError(f"no table {name!r} in the reference world; there are {', '.join(table_names())}")
    return tuple(path.read_text(encoding="utf-8").splitlines())


def read_table(name: str) -> list[Row]:
    """The rows of a shipped table; KeyError names the tables there are."""
    return [json.loads(line) for line in _lines(name)]


def typo(text: str, source: random.Random, rate: float) -> str:
    """`text` with about `rate` of its letters swapped with the next, dropped or doubled; never in training."""
    out: list[str] = []
    letters = iter(range(len(text)))
    for i in letters:
        letter = text[i]
        if not letter.isalpha() or source.random() >= rate:
            out.append(letter)
            continue
        kind = source.choice(("swap", "drop", "double"))
        if kind == "double":
            out.append(letter * 2)
        elif kind == "swap" and i + 1 < len(text) and text[i + 1].isalpha():
            out.append(text[i + 1] + letter)
            next(letters)
    return "".join(out)
