"""The page docs/stages.md, made from the code and from a measured run: `python -m weighin.harness.catalogue STORE`.

What stands between the marks of a measurement comes from the newest runs of the spec `lifecycle` and of the sweeps of
exports in the store; all else comes from the stages' docstrings and signatures, and a test holds the page to them.
"""

import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args, get_origin

from weighin.harness import registry
from weighin.harness.plugin import Name
from weighin.results.errors import WeighinError
from weighin.results.render import quantity
from weighin.results.store import Store

MEASURED = re.compile(r"<!-- measured -->\n.*?<!-- /measured -->\n", re.DOTALL)
SPEC = "lifecycle"
EXPORTS = ("openvino-sweep", "onnx-sweep", "gguf-sweep")
"""Specs of stages that need environments of their own."""
QUALITY = "world_heldout/word_perplexity"
Row = Mapping[str, Any]
HEAD = ("variant", "on disk", "resident after a forward", "weights", "kernel that ran", "perplexity", "loads with")


def page(store: Store | None) -> str:
    """The whole page; without a store the measured parts are left empty."""
    names = [name for name, entry in registry.entries("stage").items() if entry.module.startswith("weighin.")]
    cards = [card for spec in (SPEC, *EXPORTS) for card in _cards(store, spec)] if store else []
    parts = [_intro(names, store, cards), *(_section(name, cards) for name in names)]
    return "\n".join(parts).rstrip() + "\n"


def described(text: str) -> str:
    """A page without its measured parts."""
    return re.sub(r"\n{3,}", "\n\n", MEASURED.sub("", text)).rstrip()


def _intro(names: list[str], store: Store | None, cards: list[Row]) -> str:
    lines = [
        "# The stages",
        "",
        "Made by `make docs` from the stages' own docstrings and signatures and from a run of the packaged spec",
        "`lifecycle`, and of the sweeps of exports, on the reference model; not written by hand.",
        "",
        "| stage | what it does | library |",
        "|---|---|---|",
    ]
    for name in names:
        doc = registry.entry("stage", name).doc()
        lines.append(f"| [`{name}`](#{name}) | {_cell(_first(doc))} | {_cell(_field(doc, 'Library'))} |")
    return "\n".join([*lines, "", *_measured(_provenance(store, cards))])


def _provenance(store: Store | None, cards: list[Row]) -> Iterator[str]:
    if store is None or not cards:
        return
    (run,) = store.rows(
        """select r.started_at, r.packages, m.cpu, m.cores, m.gpu from runs r join machines m using (machine_key)
           where r.run_id = ?""",
        [cards[0]["run_id"]],
    )
    versions = ", ".join(
        f"{name} {run['packages'][name]}" for name in ("torch", "transformers") if name in run["packages"]
    )
    where = f"{run['cpu']}, {run['cores']} cores, {run['gpu'] or 'no GPU'}"
    yield f"Measured on {run['started_at']:%Y-%m-%d} on {where}, {versions}."
    yield "Before → after: against the parent. Perplexity: per word of held-out text, which no stage is trained on."
    yield (
        "*dense*: ordinary weights. *packed*: low-bit weights stay low-bit in memory. *simulated*: low-bit on disk "
        "only, unpacked to dense in memory, so that speed, memory and energy are those of a dense kernel and enter no "
        "front and no gate as compressed figures."
    )


def _section(name: str, cards: list[Row]) -> str:
    entry, plugin = registry.entry("stage", name), registry.stage(name)
    abroad = [f"In an environment of its own, once before: `weighin setup {plugin.environment}`.", ""]
    head = [f"\n## {name}", "", entry.doc(), "", *(abroad if plugin.environment else [])]
    lines = [*head, "| parameter | default | what is allowed |", "|---|---|---|"]
    for field, info in plugin.parameters.model_fields.items():
        default = "required" if info.is_required() else f"`{info.default!r}`"
        lines.append(f"| `{field}` | {_cell(default)} | {_cell(allowed(info))} |")
    if not plugin.parameters.model_fields:
        lines[-2:] = ["No parameters."]
    return "\n".join([*lines, "", *_measured(_table([c for c in cards if c["stage"] == name]))])


def allowed(info: Any) -> str:
    """What a pydantic field takes, as a reader wants it."""
    return f"{_type(info.annotation)} {_limits(info.metadata)}".strip()


def _type(hint: Any) -> str:
    inner = get_args(hint)
    if hasattr(hint, "__metadata__"):
        return f"{_type(inner[0])} {_limits(hint.__metadata__)}".strip()
    if get_origin(hint) is Literal:
        return ", ".join(str(value) for value in inner)
    if get_origin(hint) is list:
        return f"list of {_type(inner[0])}"
    if inner:
        return " or ".join(_type(part) for part in inner)
    return str(NAMES.get(hint, hint))


def _limits(metadata: Any) -> str:
    """pydantic's constraints (some come wrapped in a field) as `> 0, ≤ 1`."""
    flat = [limit for entry in metadata for limit in getattr(entry, "metadata", [entry])]
    found = ((sign, getattr(limit, name)) for limit in flat for name, sign in SIGNS.items() if hasattr(limit, name))
    return ", ".join(f"{sign} {value}" for sign, value in found)


NAMES = {
    type(None): "none",
    Name: "variant or model",
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true, false",
}
SIGNS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}


def _table(cards: list[Row]) -> Iterator[str]:
    if not cards:
        return
    yield "| " + " | ".join(HEAD) + " |"
    yield "|" + "---|" * len(HEAD)
    for card in cards:
        cells = (
            f"`{card['variant']}` of `{card['parent']}`",
            _pair(card, "disk_bytes", "B"),
            _pair(card, "memory_bytes", "B"),
            card["form"],
            card["kernel"],
            f"{card['parent_quality']:.4g} → {card['quality']:.4g}" if card["quality"] else card["quality_reason"],
            card["loader"] or "",
        )
        yield "| " + " | ".join(_cell(str(cell)) for cell in cells) + " |"


def _pair(card: Row, name: str, unit: str) -> str:
    return f"{quantity(card[f'parent_{name}'], unit)} → {quantity(card[name], unit)}"


def _cards(store: Store, spec: str) -> list[Row]:
    rows = store.rows(
        """with run as (
               select run_id from runs where spec_name = ? and status = 'ok'
               order by started_at desc, run_id desc limit 1),
           quality as (
               select s.variant, s.value, s.reason from scores s join run using (run_id)
               where s.suite = 'accuracy' and s.metric = ?),
           cards as (select c.* from variant_cards c join run using (run_id))
           select c.*, p.disk_bytes as parent_disk_bytes, p.memory_bytes as parent_memory_bytes,
               q.value as quality, q.reason as quality_reason, b.value as parent_quality
           from cards c
           left join cards p on p.variant = c.parent
           left join quality q on q.variant = c.variant
           left join quality b on b.variant = c.parent
           where c.stage is not null and c.parent is not null order by c.position""",
        [spec, QUALITY],
    )
    if not rows and spec == SPEC:
        raise WeighinError(f"{store.path}: holds no run of {SPEC} that went well; run `weighin run {SPEC}` first")
    return list(rows)


def _measured(lines: Iterator[str]) -> list[str]:
    found = list(lines)
    return ["<!-- measured -->", *found, "", "<!-- /measured -->\n"] if found else []


def _first(doc: str) -> str:
    return doc.split("\n\n")[0].replace("\n", " ")


def _field(doc: str, name: str) -> str:
    """A paragraph's `Library: ...` up to the end of its sentence."""
    match = re.search(rf"^{name}: (.+?)(?:\.\s|\.$|\n\n|\n[A-Z]\w+:)", doc, re.MULTILINE | re.DOTALL)
    return match.group(1).replace("\n", " ") if match else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    sys.stdout.write(page(Store(sys.argv[1]) if len(sys.argv) > 1 else None))
