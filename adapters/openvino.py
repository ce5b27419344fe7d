"""OpenVINO: the model exported for Intel's runtime, with weights of 32, 16, 8 or 4 bits, served and scored by it.

Library: optimum-intel (`OVModelForCausalLM`) with NNCF's weight compression, in an environment of its own.
Papers: the compression of 4-bit weights may be helped by activation-aware scaling (AWQ, arXiv 2306.00978), GPTQ (arXiv
2210.17323) or NNCF's scale estimation, which fits each group's scale to what the layer gives on calibration text.

Costs: an export, seconds to minutes; calibrated methods more. Buys: a model as it will be served on processors, whose
low-bit weights stay low-bit in memory. What OpenVINO would choose by itself is named here, because it changes numbers:
the precision of the arithmetic (on processors with 16-bit units an "FP32" model runs in bfloat16 unless told), that of
the key-value cache (8 bits beside compressed weights), and whether activations are rounded to 8 bits at run time.
"""
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
# (what is imported here is installed in an environment of its own)

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from weighin.adapters._export import companions, exportable
from weighin.adapters._openvino import SETTINGS, OpenVINO
from weighin.harness import Checkpoint, Outline, WeighinError, stage
from weighin.harness.text import documents, text_files

Method = Literal["awq", "gptq", "scale_estimation"]
Precision = Literal["f32", "f16", "bf16"]


def _foresee(parent: Outline, params: Mapping[str, Any]) -> Outline:
    if params["bits"] != 4 and (params["methods"] or params["ratio"] < 1):
        raise WeighinError(f"methods, ratio: only weights of 4 bits are fitted or mixed (got bits: {params['bits']})")
    return exportable("openvino", parent)


def _reads(params: Mapping[str, Any]) -> list[Path]:
    return text_files(params) if params["methods"] else []


@stage(
    needs=("optimum.intel.openvino", "nncf", "openvino", "transformers", "torch"),
    environment="openvino",
    changes="runtime",
    opens=OpenVINO,
    reads=_reads,
    foresee=_foresee,
    example={"bits": 8},
)
def openvino(
    parent: Checkpoint,
    out: Path,
    *,
    bits: Literal[32, 16, 8, 4] = 8,
    symmetric: bool = False,
    group_size: PositiveInt | Literal[-1] = 128,
    ratio: Annotated[float, Field(ge=0, le=1)] = 1.0,
    methods: list[Method] = [],  # noqa: B006  (a schema's default, never changed)
    data: str = "reference:calibration_text",
    samples: PositiveInt = 128,
    seed: int = 0,
    precision: Precision = "f32",
    cache: Literal["f32", "f16", "bf16", "u8"] = "f32",
    dynamic_quantization: NonNegativeInt = 0,
) -> None:
    """Export and compress. The embedding and the head keep 8 bits where the layers have 4, as NNCF has it.

    8 bits have one scale a row; of 4 bits `group_size` inputs share one, and `ratio` is the share of layers that get
    them, the rest 8. `methods` are calibrated on `data`. `precision`, `cache` and `dynamic_quantization` (the size of
    the groups in which activations are rounded to 8 bits at run time; 0: they are not) are how it is served.
    """
    import torch
    from optimum.intel import OVModelForCausalLM, OVWeightQuantizationConfig

    quantised: dict[str, Any] = {"load_in_8bit": False}
    if bits in (8, 4):
        how: dict[str, Any] = {"bits": bits, "sym": symmetric}
        if bits == 4:
            how |= {"group_size": group_size, "ratio": ratio, **_calibrated(methods, parent.path)}
        if methods:
            how |= {"dataset": documents(data, samples=samples, seed=seed), "num_samples": samples}
        quantised = {"quantization_config": OVWeightQuantizationConfig(**how)}
    model = OVModelForCausalLM.from_pretrained(
        str(parent.path), export=True, compile=False, local_files_only=True, use_cache=True, torch_dtype=torch.float32,
        **quantised,
    )  # fmt: skip
    if bits == 16:
        model.half()
    model.save_pretrained(out)
    companions(parent.path, out)
    served = {
        "INFERENCE_PRECISION_HINT": precision, "KV_CACHE_PRECISION": cache,
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": str(dynamic_quantization),
    }  # fmt: skip
    (out / SETTINGS).write_text(json.dumps(served, indent=1) + "\n", encoding="utf-8")


def _calibrated(methods: list[Method], source: Path) -> dict[str, Any]:
    """optimum-intel's words for NNCF's methods."""
    if not methods:
        return {}
    named = {"tokenizer": str(source), "scale_estimation": "scale_estimation" in methods, "gptq": "gptq" in methods}
    return {**named, "quant_method": "awq"} if "awq" in methods else named
