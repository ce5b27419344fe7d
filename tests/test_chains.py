"""Stages in a row: every one of them in a chain, keys that follow the other checkpoints, and what `plan` refuses."""

import os
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from weighin.harness import registry
from weighin.harness.plan import Plan, job_names, make_plan
from weighin.harness.progress import Display
from weighin.harness.run import weigh
from weighin.harness.spec import SpecError, parse_spec
from weighin.results.store import Store

SUITES = {"memory": {"new_tokens": 2}}
CHAINS = {
    "healed": ["prune", "distill", "gptq", {"speculate": {"method": "lookup"}}],
    "regrown": ["shrink", "pretrain", "continue", {"rtn": {"group_size": 32}}, "lora"],
    "taught": ["tune", {"merge": {"with": ["base"]}}, "awq"],
    "smooth": ["lora", "smoothquant", {"decode": {"temperature": 0.5}}],
    "thin": ["factorize", "int8"],
    "small": ["lora", "nf4"],
    "aware": ["continue", "qat"],
}


def planned(pico_dir: Path, variants: dict[str, Any]) -> Plan:
    store = Store(os.environ["WEIGHIN_STORE"])
    plan = make_plan(parse_spec({"base": str(pico_dir), "variants": variants, "suites": SUITES}), store)
    assert plan is not None
    return plan


def with_examples(chain: list[Any]) -> list[dict[str, Any]]:
    """Each stage with its quick parameters where the chain gives it none."""
    named = [step if isinstance(step, dict) else {step: {}} for step in chain]
    return [{s: {**registry.stage(s).example, **given}} for step in named for s, given in step.items()]


def test_every_stage_works_in_a_chain(pico_dir: Path) -> None:
    variants = {label: with_examples(chain) for label, chain in CHAINS.items()}
    covered = {stage for chain in variants.values() for step in chain for stage in step}
    ours = {name for name, entry in registry.entries("stage").items() if entry.module.startswith("weighin.")}
    here = {name for name in ours if not registry.stage(name).environment}  # test_exports.py has the others
    assert covered == here, "a new stage joins a chain here"
    store, plan = Store(os.environ["WEIGHIN_STORE"]), planned(pico_dir, variants)
    with Display(Console(file=open(os.devnull, "w")), job_names(plan), {}) as display:
        run, ok = weigh(plan, store, display)
    assert ok, store.rows("select label, suite, status, reason from cells where run_id = ? and status <> 'ok'", [run])
    cards = {card["variant"]: card for card in store.rows("select * from variant_cards where run_id = ?", [run])}
    assert {card["form"] for card in cards.values()} == {"dense", "packed", "simulated"}
    assert cards["healed"]["sparsity"] > 0.45, "distilling and quantising leave a pruned model pruned"
    assert cards["healed"]["serving"]["block"] and cards["smooth"]["serving"]["options"]["temperature"] == 0.5
    base = cards["base"]
    for label in ("healed", "taught", "thin", "small", "aware"):
        assert cards[label]["disk_bytes"] < base["disk_bytes"], f"{label} is smaller on disk"


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        ({"v": ["gptq", "prune"]}, "variants.v[1].prune: the parent's weights are already quantised"),
        ({"v": ["nf4", {"lora": {"merge": True}}]}, "variants.v[1].lora: "),
        ({"v": [{"decode": {"beams": 2}}, "int8"]}, "variants.v[1].int8: int8 makes new weights, and the parent only"),
        ({"a": "shrink", "v": [{"merge": {"with": ["a"]}}]}, "variants.v[0].merge: "),
        ({"v": [{"speculate": {"draft": "reference:draft"}}]}, "variants.v[0].speculate: the draft has another vocab"),
        ({"v": [{"distill": {"teacher": ["reference:base"]}}]}, "variants.v[0].distill: the teacher has another voc"),
        ({"v": [{"merge": {"with": ["w"]}}]}, "variants.v[0].merge.with: no variant 'w' above this one, and no model"),
        ({"v": [{"gptq": {"group_size": 96}}]}, "variants.v[0].gptq: group_size: 96 does not divide"),
        ({"v": [{"prune": {"pattern": "2:4", "sparsity": 0.3}}]}, "only 0.5 fits (got 0.3)"),
        ({"v": [{"from": "reference:nobody"}, "int8"]}, "variants.v[0].from: base.model: no reference model 'nobody'"),
        ({"v": [{"shrink": {"layers": 2}}]}, "variants.v[0].shrink: "),
    ],
)
def test_what_cannot_work_is_refused_at_plan(pico_dir: Path, variants: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        planned(pico_dir, variants)
    assert message in str(caught.value)


def test_every_impossible_chain_is_told_at_once(pico_dir: Path) -> None:
    with pytest.raises(SpecError) as caught:
        planned(pico_dir, {"a": ["int8", "prune"], "b": ["int8", "shrink"], "c": "int8"})
    assert len(str(caught.value).splitlines()) == 2


def test_a_key_follows_the_checkpoints_that_a_parameter_names_and_not_their_labels(pico_dir: Path) -> None:
    def key(other: dict[str, Any], label: str = "other") -> str:
        merged = [{"prune": {"method": "magnitude"}}, {"merge": {"with": [label]}}]
        return planned(pico_dir, {label: other, "merged": merged}).variant("merged")

    half = {"prune": {"method": "magnitude", "sparsity": 0.25}}
    assert key(half) == key(half, "renamed")
    assert key(half) != key({"prune": {"method": "magnitude", "sparsity": 0.3}})


def test_what_a_variant_names_is_made_before_it(pico_dir: Path) -> None:
    """Even where nothing else of it is left to do."""
    variants = {"other": "int8", "v": [{"speculate": {"draft": "other"}}]}
    plan = planned(pico_dir, variants)
    assert [link.step.stage for link in plan.to_make()] == ["int8", "speculate"]
    (link,) = plan.chains["v"]
    assert link.others == {"draft": (plan.variant("other"),)}


def test_a_chain_may_begin_with_another_model(pico_dir: Path) -> None:
    plan = planned(
        pico_dir, {"v": [{"from": "reference:draft"}, "int8"], "w": [{"from": "v"}, {"decode": {"beams": 2}}]}
    )
    root = plan.chains["v"][0].root
    assert root != plan.base.key and plan.elsewhere[root].path.name == "draft"
    assert [link.root for link in plan.chains["w"]] == [root, root]
