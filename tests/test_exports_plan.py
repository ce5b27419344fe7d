"""What may be exported and what may follow is known at `plan`; no environment is needed to refuse."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from weighin.adapters._gguf import ours, pairs_apart, pairs_beside, theirs
from weighin.harness import environments, registry
from weighin.harness.outline import RUNTIME, loader, mark, read
from weighin.harness.plan import make_plan
from weighin.harness.spec import SpecError, parse_spec
from weighin.results.pairs import served_apart
from weighin.results.store import Store

ROOT = Path(__file__).resolve().parent.parent
EXPORTS = [name for name in sorted(registry.entries("stage")) if registry.stage(name).opens]
LISTS = sorted({registry.stage(name).environment for name in EXPORTS})


def plan(base: Path, *steps: dict[str, Any]) -> Any:
    document = {"base": str(base), "variants": {"mine": list(steps)}, "suites": {"memory": {}}}
    return make_plan(parse_spec(document), Store(base / "none.duckdb"))


@pytest.mark.parametrize("stage", EXPORTS)
def test_an_export_is_the_end_of_the_weights_but_not_of_the_serving(stage: str, pico_dir: Path) -> None:
    with pytest.raises(SpecError, match=f"an export that {stage} computes with.*Put prune before {stage}"):
        plan(pico_dir, {stage: {}}, {"prune": {}})
    found = plan(pico_dir, {stage: {}}, {"decode": {"beams": 2}})
    environment = registry.stage(stage).environment
    assert [link.environment for link in found.chains["mine"]] == [environment, environment]
    assert {cell.environment for cell in found.cells if cell.label == "base"} == {""}


@pytest.mark.parametrize("stage", EXPORTS)
@pytest.mark.parametrize(
    ("before", "fault"),
    [
        ({"int8": {}}, "already quantised"),
        ({"factorize": {"ratio": 0.5}}, "modules are not those of its architecture"),
        ({"lora": {"merge": False}}, "keeps its adapter"),
        ({"decode": {"beams": 2}}, "only changes how a model is served"),
    ],
)
def test_what_cannot_be_exported(stage: str, before: dict[str, Any], fault: str, pico_dir: Path) -> None:
    with pytest.raises(SpecError, match=fault):
        plan(pico_dir, before, {stage: {}})


@pytest.mark.parametrize("params", [{"bits": 8, "methods": ["gptq"]}, {"bits": 16, "ratio": 0.5}])
def test_only_four_bits_are_fitted(params: dict[str, Any], pico_dir: Path) -> None:
    with pytest.raises(SpecError, match="only weights of 4 bits"):
        plan(pico_dir, {"openvino": params})


def test_heads_that_optimum_would_get_wrong_are_refused(pico_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(pico_dir, tmp_path / "wide")
    file = tmp_path / "wide" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "head_dim": 64}))
    with pytest.raises(SpecError, match="64 wide"):
        plan(tmp_path / "wide", {"onnx": {}})


@pytest.mark.parametrize("name", LISTS)
def test_instruments_are_the_same_on_both_sides(name: str) -> None:
    """lm-eval's tasks and prompts are the protocol: their version is that of what was tested together."""
    lines = (ROOT / "constraints.txt").read_text().split()
    ours = dict(line.split("==") for line in lines if line.startswith(("lm_eval==", "torch==")))
    packages = environments.find(name).packages
    assert packages["lm-eval"] == ours["lm_eval"] and packages["torch"] == ours["torch"]
    for need in ("pydantic", "numpy", "scipy", "safetensors", "psutil", "pyyaml", "scikit-learn", "datasets"):
        assert need in packages, "what our own worker and suites import"
    assert "torchvision" not in packages and "openvino-telemetry" not in packages


def test_a_mark_says_whose_runtime_opens_a_directory(tmp_path: Path) -> None:
    mark(tmp_path, "openvino")
    assert json.loads((tmp_path / RUNTIME).read_text()) == {"stage": "openvino"}
    assert read(tmp_path).runtime == "openvino" and loader(read(tmp_path)) == "openvino"


def test_packages_may_differ_only_between_environments() -> None:
    there, other = ({"environment": {"name": name, "key": name}, "packages": {}} for name in "ab")
    apart = ("environment", "packages.torch", "packages.transformers", "packages.datasets", "packages.tqdm")
    assert served_apart([{"packages": {}}, there]) == served_apart([there, other]) == apart
    assert served_apart([{"packages": {"torch": "1"}}, {"packages": {"torch": "2"}}]) == ()
    assert served_apart([there, {**there, "packages": {"torch": "2"}}]) == ()


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"model_type": "qwen2"}, "of the type 'qwen2'. Allowed: llama"),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4}}, "rope is of the type 'llama3'"),
        ({"attention_bias": True}, "layers have biases"),
    ],
)
def test_what_is_not_written_for_llama_cpp_is_refused(
    changed: dict[str, Any], fault: str, pico_dir: Path, tmp_path: Path
) -> None:
    shutil.copytree(pico_dir, tmp_path / "other")
    file = tmp_path / "other" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changed}))
    with pytest.raises(SpecError, match=fault):
        plan(tmp_path / "other", {"gguf": {}})


def test_llama_cpp_has_other_names_and_another_order_of_rows() -> None:
    """Rope turns row i with row i + half a head at PyTorch's, and row 2i with row 2i + 1 at llama.cpp's."""
    for name in ("model.embed_tokens", "lm_head", "model.layers.11.self_attn.q_proj", "model.layers.3.mlp.down_proj"):
        assert ours(theirs(name)) == name
    assert theirs("model.layers.11.self_attn.q_proj") == "blk.11.attn_q"
    rows = np.arange(8.0)[:, None] * np.ones((1, 3))  # two heads of four
    beside = pairs_beside(rows, 2)
    assert beside[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert (pairs_apart(beside, 2) == rows).all()
    wide = np.arange(12.0)[:, None]
    assert (
        pairs_beside(wide, 2)[:6, 0].tolist() == [0, 3, 1, 4, 2, 5]
        and (pairs_apart(pairs_beside(wide, 2), 2) == wide).all()
    )
