"""What optimum-benchmark's columns are called: which are measurements, in which unit, and what tells rows apart."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from weighin.results.outside import name
from weighin.results.records import Better, Metric

TARGETS = ("forward", "prefill", "decode", "generate", "per_token", "call", "load", "train", "warmup", "overall")
"""The first words of what 0.1's short reports write as `Decode Latency (s)`."""

IN_PARENTHESES = re.compile(r"(?P<metric>[^()]{1,200}?) ?\((?P<unit>[A-Za-z0-9%/ ]{1,20})\)")
REPORT = re.compile(
    r"(?:report\.)?(?P<metric>[\w-]{1,60}(?:\.[\w-]{1,60})?\.(?:latency|throughput|memory|energy|efficiency))"
    r"\.(?P<part>\w{1,40})"
)
UNITS = {
    "s": ("s", 1.0), "ms": ("s", 1e-3), "us": ("s", 1e-6), "ns": ("s", 1e-9),
    "B": ("B", 1.0), "KB": ("B", 1e3), "MB": ("B", 1e6), "GB": ("B", 1e9),
    "KiB": ("B", 2.0**10), "MiB": ("B", 2.0**20), "GiB": ("B", 2.0**30),
    "J": ("J", 1.0), "Wh": ("J", 3600.0), "kWh": ("J", 3.6e6), "%": ("1", 0.01),
}  # fmt: skip
"""A unit's base unit and what to multiply by. The tool's MB are 1e6 B (trackers/memory.py)."""


class Column(NamedTuple):
    """What a column measures: with its `unit` in the title, or as a `part` of a report, which has it elsewhere."""

    metric: str
    unit: str | None
    part: str


def column(title: str) -> Column | None:
    """What a column measures; None where it is no measurement."""
    found = IN_PARENTHESES.fullmatch(title)
    if found and (found["unit"] in UNITS or "/" in found["unit"] or "CO2" in found["unit"]):
        return Column(_metric(found["metric"]), found["unit"], "")
    if found := REPORT.fullmatch(title):
        return Column(found["metric"], None, found["part"])
    return None


def _metric(title: str) -> str:
    """`forward.peak_memory` as it is; `Decode Latency` as `decode.latency`."""
    if " " not in title:
        return title
    words = title.lower().replace("per token", "per_token").split()
    if words[0] in TARGETS and len(words) > 1:
        return f"{words[0]}.{'_'.join(words[1:])}"
    return "_".join(words)


def in_base(metric: str, unit: str) -> tuple[Metric, float, str]:
    """The metric in its base unit, what to multiply by, and the suite that it belongs to."""
    over, _, below = unit.partition("/")
    if below:
        what, below_factor = UNITS.get(below, (below, 1.0))
        counted, over_factor = UNITS.get(over, (over.removesuffix("s") or over, 1.0))
        base, factor = f"{counted}/{what}", over_factor / below_factor
    else:
        base, factor = UNITS.get(unit, (unit, 1.0))
    return Metric(name(metric), name(base), _better(base), "mean", runtime=True), factor, _suite(base)


COSTS = ("s", "B", "J", "kgCO2eq", "gCO2eq")


def _better(base: str) -> Better:
    """Less of a cost is better, by itself or for a token; more tokens for a cost are better."""
    over, _, below = base.partition("/")
    return "lower" if over in COSTS else "higher" if below in COSTS else "none"


def _suite(base: str) -> str:
    parts = base.split("/")
    if "J" in parts or "CO2" in base:
        return "energy"
    return "memory" if "B" in parts else "latency" if "s" in parts else "benchmark"


FIRST = ("model", "backend.model", "Model", "experiment_name", "Experiment Name", "name", "Group")
"""What names a row; whatever else tells rows apart comes after it."""
THEN = ("batch_size", "sequence_length", "new_tokens")


def labels(setups: Sequence[Mapping[str, Any]], path: Path) -> list[str]:
    """A name for each row: its model, then as few of its other columns as tell all rows apart."""
    keys = list(dict.fromkeys(key for setup in setups for key in setup))
    ranked = [key for key in FIRST if key in keys]
    ranked += [key for end in THEN for key in keys if _ends(key, end)]
    ranked += [key for key in keys if key not in ranked and not _is_index(key, setups)]
    chosen = ranked[:1] if ranked and ranked[0] in ("model", "backend.model", "Model") else []
    for key in ranked:
        if len(_distinct(setups, chosen)) == len(_distinct(setups, ranked)):
            break
        if key not in chosen and len(_distinct(setups, [*chosen, key])) > len(_distinct(setups, chosen)):
            chosen.append(key)
    if not chosen:
        chosen = [key for key in ranked if key in FIRST][:1]
    words = [" ".join(_word(key, setup) for key in chosen if key in setup) for setup in setups]
    return _told_apart([name(said or _place(path)) for said in words])


def _place(path: Path) -> str:
    """What a file is called where it names no model: `EXPERIMENT/0/inference_results.csv` by its experiment."""
    if path.stem not in ("inference_results", "benchmark", "benchmark_report"):
        return path.stem
    folders = [folder.name for folder in path.absolute().parents if folder.name and not folder.name.isdigit()]
    return folders[0] if folders else path.stem


def _word(key: str, setup: Mapping[str, Any]) -> str:
    return str(setup[key]) if key in FIRST else f"{key.rpartition('.')[2].lower().replace(' ', '_')}={setup[key]}"


def _ends(key: str, end: str) -> bool:
    return key.lower().replace(" ", "_").endswith(end)


def _is_index(key: str, setups: Sequence[Mapping[str, Any]]) -> bool:
    """Pandas writes a column that only counts the rows."""
    return key == "" or key.startswith("Unnamed:")


def _distinct(setups: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> set[tuple[str, ...]]:
    return {tuple(str(setup.get(key)) for key in keys) for setup in setups}


def _told_apart(found: list[str]) -> list[str]:
    seen: dict[str, int] = {}
    unique = []
    for label in found:
        seen[label] = seen.get(label, 0) + 1
        unique.append(label if seen[label] == 1 else f"{label} #{seen[label]}")
    return unique
