"""An exported model opened by ONNX Runtime: what it computes with, read from its initializers and its profile."""
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
# (what is imported here is installed in an environment of its own)

import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from weighin.adapters._export import tensors
from weighin.harness import Weight

FILE = "model.onnx"
PRODUCTS = {"MatMul", "FusedMatMul", "Gemm", "MatMulNBits", "MatMulInteger", "MatMulIntegerToFloat"} | {
    "DynamicQuantizeMatMul"
}
DTYPES = {1: "float32", 2: "uint8", 3: "int8", 10: "float16", 16: "bfloat16", 21: "uint4", 22: "int4"}
"""Of onnx.TensorProto's element types, those that weights have."""


class OnnxRuntime:
    """Implements `Runtime`. As many threads as PyTorch would take, so that the two are timed alike."""

    name = "onnx"

    def __init__(self, folder: Path) -> None:
        from optimum.onnxruntime import ORTModelForCausalLM

        self.file = folder / FILE
        self.module: Any = ORTModelForCausalLM.from_pretrained(
            str(folder), local_files_only=True, use_cache=True, session_options=_options()
        )
        self.module.forward = _masked(self.module.forward)

    def weights(self) -> Iterator[Weight]:
        """The initializers that matrix products and lookups read, under the names of PyTorch's layers, and the rest."""
        import onnx
        from onnx import numpy_helper

        graph = onnx.load(self.file).graph
        stored = {each.name: each for each in graph.initializer}
        readers: dict[str, Any] = {}
        for node in graph.node:
            for name in node.input:
                readers.setdefault(name, node)
        for name, found in stored.items():
            elements = 1
            for size in found.dims:
                elements *= size
            dtype = DTYPES.get(found.data_type)
            node = readers.get(name)
            if dtype is None or elements < 2 or node is None:
                continue
            layer, main, packed = _layer(node, name), _main(node, name), node.op_type == "MatMulNBits"
            size = numpy_helper.to_array(found).nbytes
            value = _Matrix(stored, node, name) if main and len(found.dims) > 1 else None
            if packed and main:
                bits = next(a.i for a in node.attribute if a.name == "bits")
                dtype, elements = f"uint{bits}", size * 8 // bits
            yield Weight(layer, dtype, elements, size, value, own=main)

    def kernel(self, ids: list[int]) -> str:
        """By ONNX Runtime's own profile of a prompt."""
        import onnxruntime

        with tempfile.TemporaryDirectory() as folder:
            options = _options()
            options.enable_profiling, options.profile_file_prefix = True, str(Path(folder) / "profile")
            session = onnxruntime.InferenceSession(str(self.file), options, providers=["CPUExecutionProvider"])
            session.run(None, self._inputs(ids, session))
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        spent: dict[str, int] = {}
        for event in events:
            kind = event.get("args", {}).get("op_name", "")
            if kind in PRODUCTS and event["name"].endswith("kernel_time"):
                spent[kind] = spent.get(kind, 0) + int(event["dur"])
        return max(spent, key=lambda name: spent[name]) if spent else "unknown"

    def cache_bytes(self, ids: list[int]) -> int | None:
        """Of the keys and values that a forward over the prompt returns."""
        cache = self.module(**tensors(ids), use_cache=True).past_key_values
        return sum(int(part.numel() * part.element_size()) for layer in cache for part in layer)

    def settings(self) -> Mapping[str, Any]:
        """What it computes in is written in the model's operators; the session adds nothing to it."""
        return {}

    def _inputs(self, ids: list[int], session: Any) -> dict[str, Any]:
        import numpy as np

        row = np.array([ids], dtype=np.int64)
        known = {"input_ids": row, "attention_mask": np.ones_like(row), "position_ids": np.arange(len(ids))[None]}
        config = self.module.config
        heads, width = config.num_key_value_heads, config.hidden_size // config.num_attention_heads
        empty = np.zeros((1, heads, 0, width), dtype=np.float32)
        return {each.name: known.get(each.name, empty) for each in session.get_inputs()}


class _Matrix:
    """The values that an initializer stands for, in PyTorch's shape."""

    def __init__(self, stored: Mapping[str, Any], node: Any, name: str) -> None:
        self.stored, self.node, self.name = stored, node, name

    def __call__(self) -> Any:
        import numpy as np
        from onnx import numpy_helper

        parts = [numpy_helper.to_array(self.stored[each]) for each in self.node.input[1:] if each in self.stored]
        if self.node.op_type == "MatMulNBits":
            return _unpacked(parts, {a.name: a.i for a in self.node.attribute})
        values = numpy_helper.to_array(self.stored[self.name])
        scale, zero = (self.stored.get(self.name.removesuffix("_quantized") + end) for end in ("_scale", "_zero_point"))
        values = values.astype(np.float32)
        if scale is not None and self.name.endswith("_quantized"):
            shift = 0 if zero is None else numpy_helper.to_array(zero).astype(np.float32)
            values = (values - shift) * numpy_helper.to_array(scale)
        return values if self.node.op_type in ("Gather", "DequantizeLinear") else np.ascontiguousarray(values.T)


def _unpacked(parts: list[Any], told: Mapping[str, int]) -> Any:
    """The matrix (out, in) of a MatMulNBits: packed (out, blocks, bytes), scales (out x blocks), zero points or 8.

    https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.MatMulNBits
    """
    import numpy as np

    packed, scales, *zeros = parts
    rows, blocks = packed.shape[:2]
    low = np.stack([packed & 15, packed >> 4], axis=-1).reshape(rows, blocks, -1).astype(np.float32)
    middle: Any = 8.0
    if zeros:
        both = np.asarray(zeros[0]).reshape(rows, -1)
        middle = np.stack([both & 15, both >> 4], axis=-1).reshape(rows, -1)[:, :blocks, None].astype(np.float32)
    return ((low - middle) * scales.reshape(rows, blocks, 1)).reshape(rows, -1)[:, : told["K"]].astype(np.float32)


def _layer(node: Any, name: str) -> str:
    """`/model/layers.0/mlp/up_proj/MatMul_Q4` as PyTorch calls the layer; a lookup by the name of its table."""
    if node.op_type in ("Gather", "DequantizeLinear"):
        return name.removesuffix("_quantized").removesuffix(".weight")
    return ".".join(node.name.strip("/").split("/")[:-1])


def _main(node: Any, name: str) -> bool:
    """Whether an initializer is the weight itself, and no scale or zero point."""
    if name.endswith(("_scale", "_zero_point")):
        return False
    return node.op_type != "MatMulNBits" or list(node.input).index(name) == 1


def _masked(forward: Any) -> Any:
    """A forward that needs no attention mask where nothing is masked, as PyTorch's: lm-eval gives none."""

    def called(input_ids: Any, attention_mask: Any = None, **rest: Any) -> Any:
        if attention_mask is None:
            attention_mask = input_ids.new_ones(input_ids.shape)
        return forward(input_ids, attention_mask=attention_mask, **rest)

    return called


def _options() -> Any:
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return options
