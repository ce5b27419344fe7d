"""A wrong spec says where, what is wrong and what is allowed; a right one comes out checked and complete."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from weighin.harness.spec import Spec, SpecError, packaged, parse_spec, read_spec

GOOD: dict[str, Any] = {
    "base": "reference:base",
    "variants": {
        "tuned": [{"lora": {"rank": 4}}],
        "small": [{"from": "tuned"}, {"prune": {"sparsity": 0.25}}, {"gptq": {"bits": 8}}],
        "quick": "int8",
    },
    "suites": {"accuracy": {"tasks": ["world_facts"]}, "latency": None},
    "gate": [{"metric": "accuracy.acc", "variant": "small", "margin": 0.02}],
}


def spec_with(**changes: Any) -> Spec:
    return parse_spec({**GOOD, **changes})


def test_a_good_spec() -> None:
    spec = parse_spec(GOOD)
    assert list(spec.chains) == ["base", "tuned", "small", "quick"]
    assert [s.stage for s in spec.chains["small"]] == ["lora", "prune", "gptq"]
    assert spec.chains["small"][0] == spec.chains["tuned"][0], "`from` shares the steps, and with them the checkpoint"
    assert spec.chains["small"][2].params["group_size"] == 128, "defaults are filled in: they count in the key"
    assert spec.suites["latency"]["requests"] == 20
    assert spec.gate[0].against == "base"
    spec_with(front={"epsilon": {"accuracy.acc": 0.01}, "reference": {"latency.tpot": 0.05, "accuracy.acc": 0.2}})


def test_the_seed_reaches_every_stage_that_has_one() -> None:
    spec = spec_with(seed=7, gate=[], variants={"a": [{"lora": {}}], "b": [{"lora": {"seed": 3}}]})
    assert [spec.chains[label][0].params["seed"] for label in "ab"] == [7, 3]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variants": {"small": [{"gptq": {"bits": 5}}]}}, "variants.small[0].gptq.bits: Input should be 2, 3, 4 or 8 (got 5)"),
        ({"variants": {"small": ["gtpq"]}}, "variants.small[0]: no stage 'gtpq'. Did you mean 'gptq'?"),
        ({"variants": {"small": [{"gptq": {"bit": 4}}]}}, "variants.small[0].gptq.bit: no such parameter. Did you mean 'bits'?"),
        ({"variants": {"small": [{"from": "tunde"}]}}, "variants.small[0].from: no variant 'tunde' above this one, and no model (a hub id, a directory, reference:NAME)."),
        ({"variants": {"small": ["int8", {"from": "base"}]}}, "variants.small[1]: `from` comes first in its list"),
        ({"variants": {"small": [{"from": "base"}]}}, "variants.small: no stage"),
        ({"variants": {"small": []}}, "variants.small: no stage"),
        ({"variants": {"base": ["int8"]}}, "variants.base: the name `base` is taken"),
        ({"variants": {"a": [{"int8": {}, "nf4": {}}]}}, "variants.a[0]: one step is one `stage: {parameters}` (got int8, nf4)"),
        ({"variants": {"a": [{"gptq": 4}]}}, "variants.a[0].gptq: parameters are a mapping (got 4)"),
        ({"suites": {"accuracy": {}}}, "suites.accuracy.tasks: Field required"),
        ({"suites": {"acuracy": {}}}, "suites: no suite 'acuracy'. Did you mean 'accuracy'?"),
        ({"suites": {}}, "suites: Dictionary should have at least 1 item"),
        ({"suites": {"latency": {"requests": 0}}}, "suites.latency.requests: Input should be greater than 0 (got 0)"),
        ({"gate": [{"metric": "accuracy.acc", "variant": "smal"}]}, "gate[0].variant: no variant 'smal'. Did you mean 'small'?"),
        ({"front": {"epsilon": {"accuracy.acc": -1}}}, "front.epsilon.accuracy.acc: Input should be greater"),
        ({"front": {"reference": {"memory.disk": 1e6}}}, "front.reference: no suite 'memory' in this spec."),
        ({"front": {"reference": {"latency": 1}}}, "front.reference: metric 'latency': should read SUITE.METRIC"),
        ({"front": {"origin": {}}}, "front.origin: no such parameter."),
        ({"gate": [{"metric": "energy.per_token", "variant": "small"}]}, "gate[0].metric: no suite 'energy' in this spec."),
        ({"gate": [{"metric": "accuracy", "variant": "small"}]}, "gate[0]: metric 'accuracy': should read SUITE.METRIC"),
        ({"gate": [{"metric": "accuracy.acc", "variant": "small", "margin": -1}]}, "gate[0]: gate accuracy.acc: margin must be a number >= 0"),
        ({"base": {"modle": "x"}}, "base.model: Field required"),
        ({"base": {"model": "x", "dtype": "int3"}}, "base.dtype: Input should be auto, float32, bfloat16 or float16 (got 'int3')"),
        ({"varients": {}}, "varients: no such parameter. Did you mean 'variants'?"),
    ],
)  # fmt: skip
def test_errors_say_where_what_and_what_is_allowed(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        spec_with(**changes)
    assert message in str(caught.value)


def test_every_fault_is_told_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        spec_with(variants={"a": ["gtpq"], "b": [{"gptq": {"bits": 5}}]}, gate=[])
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("base: [unclosed", "is not YAML"),
        ("- a list", "a spec is a mapping"),
        ("", "a spec is a mapping"),
        ("base: !!python/object/apply:os.system ['true']", "is not YAML"),
    ],
)
def test_files_that_are_no_spec(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(content)
    with pytest.raises(SpecError, match=message):
        read_spec(str(path))


def test_a_missing_spec_offers_the_packaged_ones() -> None:
    with pytest.raises(SpecError, match="Did you mean 'default'"):
        read_spec("defualt")


@pytest.mark.parametrize("name", sorted(packaged()))
def test_packaged_specs_are_right(name: str) -> None:
    spec = read_spec(name)
    assert spec.name == name
    assert len(spec.chains) > 1


def test_examples_are_right() -> None:
    for path in sorted((Path(__file__).parent.parent / "examples").glob("*.yaml")):
        parse_spec(yaml.safe_load(path.read_text()), path.stem)


def test_a_label_is_text_and_yaml_may_not_think_so() -> None:
    found = spec_with(variants={4: "int8", "four": "int8"}, gate=[])
    assert list(found.chains) == ["base", "4", "four"] and list(found.source["variants"]) == ["4", "four"]
    with pytest.raises(SpecError, match=r"variants: .*YAML reads this label as True: put it in quotes"):
        spec_with(variants={True: "int8"}, gate=[])
