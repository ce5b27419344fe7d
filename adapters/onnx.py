"""ONNX: the model exported for ONNX Runtime, with weights of 32, 8 or 4 bits, served and scored by it.

Library: optimum-onnx (`ORTModelForCausalLM`) and ONNX Runtime's own quantisers, in an environment of its own.
Papers: 8 bits are Jacob et al.'s integer arithmetic (arXiv 1712.05877) with activations rounded at run time; 4 bits are
rounded to the nearest in blocks (`MatMulNBits`).

Costs: an export, seconds to minutes. Buys: a model as it will be served by ONNX Runtime, on any processor. With 8 bits
activations are rounded, too (one scale a tensor, found at run time), which costs more accuracy than rounded weights
alone; with 4 bits the embedding stays as it was.
"""
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
# (what is imported here is installed in an environment of its own)

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from weighin.adapters._export import companions, exportable
from weighin.adapters._onnx import FILE, OnnxRuntime
from weighin.harness import Checkpoint, Outline, WeighinError, stage
from weighin.harness.older import readable


def _foresee(parent: Outline, params: Mapping[str, Any]) -> Outline:
    width = parent.config.get("head_dim")
    heads, hidden = parent.config.get("num_attention_heads"), parent.config.get("hidden_size")
    if width and heads and hidden and width != hidden // heads:
        raise WeighinError(
            f"the parent's heads are {width} wide and not hidden_size / num_attention_heads ({hidden // heads}), which "
            "optimum-onnx takes for granted when it fills the cache"
        )
    return exportable("onnx", parent)


@stage(
    needs=("optimum.onnxruntime", "onnxruntime.quantization", "onnx", "transformers", "torch"),
    environment="onnx",
    changes="runtime",
    opens=OnnxRuntime,
    foresee=_foresee,
    example={"bits": 32},
)
def onnx(
    parent: Checkpoint,
    out: Path,
    *,
    bits: Literal[32, 8, 4] = 8,
    group_size: Literal[16, 32, 64, 128, 256] = 32,
    symmetric: bool = True,
    accuracy_level: Literal[1, 4] = 1,
) -> None:
    """Export and quantise every matrix product of the weights.

    8 bits: weights with one scale a column, activations with one a tensor at run time. 4 bits: `group_size` inputs
    share a scale; `accuracy_level` is ONNX Runtime's, 1 to compute in float32, 4 to round activations to int8.
    """
    import torch
    from optimum.onnxruntime import ORTModelForCausalLM

    with readable(parent.path) as source:
        model = ORTModelForCausalLM.from_pretrained(
            str(source), export=True, use_cache=True, local_files_only=True, dtype=torch.float32
        )
        model.save_pretrained(out)
    companions(parent.path, out)
    if bits == 8:
        _eight(out / FILE, symmetric)
    elif bits == 4:
        _four(out / FILE, group_size, symmetric, accuracy_level)


def _eight(file: Path, symmetric: bool) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    aside = file.with_name("eight.onnx")
    quantize_dynamic(
        file, aside, per_channel=True, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gather"],
        extra_options={"MatMulConstBOnly": True, "WeightSymmetric": symmetric},
    )  # fmt: skip
    _replace(file, aside)


def _four(file: Path, group_size: int, symmetric: bool, accuracy_level: int) -> None:
    import onnx as format_
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    aside = file.with_name("four.onnx")
    found = MatMulNBitsQuantizer(
        format_.load(file), bits=4, block_size=group_size, is_symmetric=symmetric, accuracy_level=accuracy_level
    )
    found.process()
    size = found.model.model.ByteSize()
    found.model.save_model_to_file(str(aside), use_external_data_format=size > 2**31 - 2**20)
    _replace(file, aside)


def _replace(file: Path, aside: Path) -> None:
    """Put the quantised model, which is one file or one with data beside it, in the place of the exported one."""
    for old in file.parent.glob(f"{file.name}*"):
        old.unlink()
    aside.rename(file)
