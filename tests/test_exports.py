"""Exports say what the model says: what was made of one is scored and continued by its own runtime, in its environment.

They need environments that take minutes to make, so they are slow, and skip with the command where one is not there.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.conftest import lend
from weighin.harness import hosted
from weighin.harness.plan import job_names, make_plan
from weighin.harness.progress import Display
from weighin.harness.run import weigh
from weighin.harness.spec import parse_spec
from weighin.results.compare import compare
from weighin.results.store import Store

pytestmark = pytest.mark.slow
SAY = '''"""say: what a model says after some prompts, alone and in company."""
from weighin.harness import Metric, Sample, suite

PROMPTS = ["The old lantern", "Nobody", "A keeper counts seven blue stones near"]


@suite(Metric("same", unit="1", better="higher"))
def say(model, *, new_tokens: int = 12):
    """Yield whether a prompt is continued alone as in a batch of unequal lengths; the text is in the detail."""
    together = model.generate(PROMPTS, max_new_tokens=new_tokens)
    for prompt, text in zip(PROMPTS, together, strict=True):
        alone, = model.generate([prompt], max_new_tokens=new_tokens)
        yield Sample(prompt, float(alone == text), detail={"text": alone})
'''
SUITES: dict[str, Any] = {
    "say": {}, "memory": {"new_tokens": 2}, "accuracy": {"tasks": ["world_facts"], "limit": 12},
    "fidelity": {"samples": 6, "limit": 6, "max_length": 64},
}  # fmt: skip
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "openvino": {
        "b32": {"bits": 32}, "b8": {"bits": 8}, "b4": {"bits": 4, "group_size": 32},
        "gptq": {"bits": 4, "group_size": 32, "methods": ["gptq"], "samples": 4},
        "fitted": {"bits": 4, "group_size": 32, "methods": ["awq", "scale_estimation"], "samples": 4, "cache": "u8"},
    },
    "onnx": {"b32": {"bits": 32}, "b8": {"bits": 8}, "b4": {"bits": 4, "group_size": 32, "symmetric": False}},
    "gguf": {
        "b32": {"quantization": "f32", "cache": "f32"}, "b8": {"quantization": "q8_0"},
        "b4": {"quantization": "q4_k_m"},
    },
}  # fmt: skip
Weighed = tuple[str, Store, str]


@pytest.fixture(scope="module")
def base(pico_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pico model with another rope than the default, as transformers 5 writes it and older releases overlook."""
    out = tmp_path_factory.mktemp("roped")
    shutil.copytree(pico_dir, out, dirs_exist_ok=True)
    config = json.loads((out / "config.json").read_text())
    config["rope_parameters"] = {"rope_theta": 50.0, "rope_type": "default"}
    (out / "config.json").write_text(json.dumps(config))
    return out


@pytest.fixture(scope="module")
def weighed(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Weighed]:
    """Every export of a stage, weighed once."""
    done: dict[str, Weighed] = {}

    def run(stage: str) -> Weighed:
        if stage not in done:
            done[stage] = _weigh(stage, base, tmp_path_factory.mktemp(stage))
        return done[stage]

    return run


def _weigh(stage: str, base: Path, place: Path) -> Weighed:
    site = place / "site"
    info = site / "weighin_test_say-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "tp_say.py").write_text(SAY)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: weighin-test-say\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[weighin.suites]\nsay = tp_say\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WEIGHIN_HOME", str(place / "home"))
        patch.syspath_prepend(str(site))
        lend(stage, place / "home")
        store = Store(place / "weighin.duckdb")
        variants = {label: [{stage: params}] for label, params in VARIANTS[stage].items()}
        document = {"base": {"model": str(base), "dtype": "float32"}, "variants": variants, "suites": SUITES}
        plan = make_plan(parse_spec(document), store)
        assert plan is not None
        with Display(Console(file=open(os.devnull, "w")), job_names(plan), {}) as display:
            run, _ = weigh(plan, store, display)
        hosted.end()
    return run, store, stage


STAGES = pytest.mark.parametrize("stage", sorted(VARIANTS))


def cards(found: Weighed) -> dict[str, Mapping[str, Any]]:
    run, store, _ = found
    return {row["variant"]: row for row in store.rows("select * from variant_cards where run_id = ?", [run])}


def figures(found: Weighed, metric: str) -> dict[str, float]:
    run, store, _ = found
    rows = store.rows("select variant, value from scores where run_id = ? and metric = ?", [run, metric])
    return {row["variant"]: row["value"] for row in rows}


@STAGES
def test_all_are_made_and_weighed(stage: str, weighed: Callable[[str], Weighed]) -> None:
    run, store, _ = found = weighed(stage)
    cells = store.rows("select label, suite, status, reason from cells where run_id = ? and label <> 'base'", [run])
    assert {c["status"] for c in cells} == {"ok"}, cells
    for label, card in cards(found).items():
        assert card["kernel"] != "unknown", card
        if label != "base":
            assert card["loader"] == stage and stage in card["kernel"]


@STAGES
def test_exact_exports_say_what_pytorch_says_here(stage: str, weighed: Callable[[str], Weighed]) -> None:
    """The same items, scored by PyTorch in our environment and by the runtime in its own: rope and all."""
    run, store, _ = found = weighed(stage)
    assert figures(found, "kl_root")["b32"] == pytest.approx(0, abs=1e-6)
    rows = store.rows(
        """select c.label, s.item, s.value from samples s join cells c using (evaluation_id)
           where c.run_id = ? and s.metric = 'world_facts/gold_margin' and c.label in ('base', 'b32')""",
        [run],
    )
    said = {label: {r["item"]: r["value"] for r in rows if r["label"] == label} for label in ("base", "b32")}
    assert len(said["base"]) == 12 and said["b32"] == pytest.approx(said["base"], abs=1e-3)
    beside = compare(store, "base", "b32", run=run)
    assert {c.suite for c in beside.comparisons} >= {"accuracy", "memory"}


@STAGES
def test_they_continue_alone_as_in_company_and_as_pytorch(stage: str, weighed: Callable[[str], Weighed]) -> None:
    run, store, _ = weighed(stage)
    rows = store.rows(
        """select c.label, s.item, s.value, s.detail from samples s join cells c using (evaluation_id)
           where c.run_id = ? and s.metric = 'same'""",
        [run],
    )
    texts = {label: {r["item"]: r["detail"]["text"] for r in rows if r["label"] == label} for label in ("base", "b32")}
    assert len(texts["base"]) == 3 and texts["b32"] == texts["base"]
    assert all(r["value"] == 1.0 for r in rows if r["label"] == "b32"), "unequal lengths are padded on the left"


@STAGES
def test_fewer_bits_lose_more_and_take_less(stage: str, weighed: Callable[[str], Weighed]) -> None:
    found = weighed(stage)
    lost, size, resident = (figures(found, name) for name in ("kl_root", "disk", "weights"))
    known = cards(found)
    assert known["b32"]["distance"] == pytest.approx(0, abs=1e-6)
    assert 1e-3 < known["b8"]["distance"] < 0.02 < known["b4"]["distance"] < 0.2
    assert lost["b32"] < lost["b8"] < lost["b4"] < 1
    assert size["b8"] < 0.5 * size["b32"] and resident["b8"] < 0.5 * resident["b32"]
    assert known["b32"]["form"] == "dense" and known["b8"]["form"] == "packed"
    assert {"int8", "uint8", "q8_0"} & known["b8"]["dtypes"].keys()
    assert {"int4", "uint4", "q4_k"} & known["b4"]["dtypes"].keys()


def test_calibrated_methods_change_what_is_written(weighed: Callable[[str], Weighed]) -> None:
    known = cards(weighed("openvino"))
    apart = {known[label]["distance"] for label in ("b4", "gptq", "fitted")}
    assert len(apart) == 3, "three ways of rounding onto one grid"


def test_what_openvino_would_choose_by_itself_is_stated(weighed: Callable[[str], Weighed]) -> None:
    known = cards(weighed("openvino"))
    stated = {label: known[label]["serving"]["runtime"]["openvino"] for label in ("b8", "fitted")}
    assert stated["b8"] == {
        "inference_precision_hint": "f32", "kv_cache_precision": "f32", "dynamic_quantization_group_size": "0",
    }  # fmt: skip
    assert stated["fitted"]["kv_cache_precision"] == "u8"


def test_matrices_that_llama_cpp_gives_more_bits_are_named(weighed: Callable[[str], Weighed]) -> None:
    """Rows of 128 are no multiple of Q4_K's 256; those of the down projection are."""
    known = cards(weighed("gguf"))
    stated = {label: known[label]["serving"]["runtime"]["gguf"] for label in ("b8", "b4")}
    assert stated["b8"] == {"quantization": "q8_0", "cache": "f16"}
    fallen = stated["b4"]["fallen_back"]
    assert fallen.keys() >= {"token_embd.weight", "blk.0.attn_q.weight"} and "blk.0.ffn_down.weight" not in fallen
    assert not {"q4_k", "q6_k"} & set(fallen.values())
