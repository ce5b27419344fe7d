"""An exported model opened by OpenVINO: what it computes with, read from the graph that the runtime executes."""
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
# (what is imported here is installed in an environment of its own)

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from weighin.adapters._export import tensors
from weighin.harness import Weight

SETTINGS = "openvino.json"
"""How the checkpoint is served, in OpenVINO's own words; `openvino_config.json` beside it is the library's."""
BITS = {"i4": 4, "u4": 4, "nf4": 4, "i8": 8, "u8": 8, "f16": 16, "bf16": 16, "f32": 32}
DTYPES = {"i4": "int4", "u4": "uint4", "i8": "int8", "u8": "uint8", "f16": "float16", "bf16": "bfloat16"} | {
    "f32": "float32"
}
PRODUCTS = ("FullyConnected", "MatMul")


class OpenVINO:
    """Implements `Runtime`. As many threads as PyTorch would take, so that the two are timed alike."""

    name = "openvino"

    def __init__(self, folder: Path) -> None:
        import torch
        from optimum.intel import OVModelForCausalLM

        self.served: dict[str, str] = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        self.config = {**self.served, "INFERENCE_NUM_THREADS": str(torch.get_num_threads()), "CACHE_DIR": ""}
        self.module: Any = OVModelForCausalLM.from_pretrained(
            str(folder), device="CPU", local_files_only=True, ov_config=dict(self.config)
        )
        self.module.compile()

    def weights(self) -> Iterator[Weight]:
        """The constants of the executed graph; values come from the exported graph, which names the layers."""
        values = self._sources()
        seen: set[str] = set()
        for op in self._executed():
            reads = [port.get_source_output().get_node() for port in op.inputs()]
            kind, layer = _info(op, "layerType"), _layer(op.get_friendly_name())
            for place, constant in enumerate(reads):
                precision, name = _info(constant, "outputPrecisions"), constant.get_friendly_name()
                elements = _elements(constant)
                if _info(constant, "layerType") != "Const" or precision not in BITS or elements < 2 or name in seen:
                    continue
                seen.add(name)
                main = place == (0 if kind == "Gather" else 1) or kind not in ("Gather", *PRODUCTS)
                value = values.get(layer) if main and kind in ("Gather", *PRODUCTS) else None
                size = (elements * BITS[precision] + 7) // 8
                yield Weight(layer, DTYPES.get(precision, precision), elements, size, value, own=main)

    def kernel(self, ids: list[int]) -> str:
        """By OpenVINO's own profile of a prompt, with the precisions that hold."""
        import openvino

        counting = {**self.config, "PERF_COUNT": "YES"}
        request = openvino.Core().compile_model(self.module.model, "CPU", counting).create_infer_request()
        request.infer(self._inputs(ids))
        spent: dict[str, float] = {}
        for each in request.profiling_info:
            if each.node_type.startswith(PRODUCTS):
                spent[each.exec_type] = spent.get(each.exec_type, 0.0) + each.real_time.total_seconds()
        return max(spent, key=lambda name: spent[name]) if spent else "unknown"

    def cache_bytes(self, ids: list[int]) -> int | None:
        """Of the states that hold keys and values after the prompt, in the precision that the runtime reports."""
        self.module(**tensors(ids))
        precision = _spelled(self.module.request.get_compiled_model().get_property("KV_CACHE_PRECISION"))
        states = [state.state for state in self.module.request.query_state() if "past_key_values" in state.name]
        if not states or precision == "u8":  # scales and zero points of the rounded cache are not in its states
            return None
        return sum(int(state.size) for state in states) * BITS[precision] // 8

    def settings(self) -> Mapping[str, Any]:
        """As the compiled model reports them."""
        compiled = self.module.request.get_compiled_model()
        return {name.lower(): _spelled(compiled.get_property(name)) for name in self.served}

    def _inputs(self, ids: list[int]) -> dict[str, Any]:
        import numpy as np

        row = np.array([ids])
        known = {
            "input_ids": row, "attention_mask": np.ones_like(row), "position_ids": np.arange(len(ids))[None],
            "beam_idx": np.zeros(1, np.int32),
        }  # fmt: skip
        return {name: known[name] for port in self.module.model.inputs for name in port.get_names() if name in known}

    def _executed(self) -> list[Any]:
        return list(self.module.request.get_compiled_model().get_runtime_model().get_ordered_ops())

    def _sources(self) -> dict[str, Any]:
        """Of each layer of the exported graph, a function that computes its matrix from the constants it is made of."""
        found: dict[str, Any] = {}
        for op in self.module.model.get_ordered_ops():
            kind = op.get_type_name()
            if kind in ("MatMul", "Gather"):
                port = op.input(1 if kind == "MatMul" else 0).get_source_output()
                if _constant(port.get_node()):
                    found.setdefault(_layer(op.get_friendly_name()), _Folded(port))
        return found


class _Folded:
    """The value of an output that depends on constants alone, float32."""

    def __init__(self, port: Any) -> None:
        self.port = port

    def __call__(self) -> Any:
        import numpy as np
        import openvino

        model = openvino.Model([self.port], [], "folded")
        exact = {"INFERENCE_PRECISION_HINT": "f32"}
        return np.asarray(openvino.Core().compile_model(model, "CPU", exact)([])[0], dtype=np.float32)


def _constant(node: Any) -> bool:
    todo = [node]
    while todo:
        at = todo.pop()
        reads = [port.get_source_output().get_node() for port in at.inputs()]
        if not reads and at.get_type_name() != "Constant":
            return False
        todo += reads
    return True


def _info(op: Any, name: str) -> str:
    found = op.get_rt_info()
    return str(found[name].astype(str)) if name in found else ""


def _layer(name: str) -> str:
    """`__module.model.layers.0.mlp.up_proj/ov_ext::linear/MatMul` as PyTorch calls the layer."""
    return name.split("/")[0].removeprefix("__module.")


def _elements(op: Any) -> int:
    shape = op.output(0).get_partial_shape()
    count = 1
    for size in shape.to_shape() if shape.is_static else ():
        count *= int(size)
    return count if shape.is_static else 0


def _spelled(value: Any) -> str:
    """A property's value in the words that set it."""
    names = {"float32": "f32", "float16": "f16", "bfloat16": "bf16", "uint8_t": "u8"}
    text = str(value)
    return next((short for long, short in names.items() if long in text), text)
