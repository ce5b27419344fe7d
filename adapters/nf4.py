"""NF4 and FP4: weights of 4 bits in blocks of 64, on a grid made for normally distributed values.

Library: bitsandbytes through transformers' `BitsAndBytesConfig`.
Paper: Dettmers, Pagnoni, Holtzman, Zettlemoyer, "QLoRA: Efficient Finetuning of Quantized LLMs", arXiv 2305.14314.

Costs: seconds, and no data. Buys: about a quarter of the memory of 16-bit linear layers, on disk and at run time, and
decoding that is faster than in 16 bits even on a CPU, where it is bound by memory; long prompts are read more slowly.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from weighin.adapters._hf import dense, load, save
from weighin.harness import Checkpoint, Outline, WeighinError, outline, stage


def _foresee(parent: Outline, params: Mapping[str, Any]) -> Outline:
    return outline.dense("nf4", parent).but(packed="bitsandbytes")


@stage(needs=("bitsandbytes", "accelerate", "transformers", "torch"), foresee=_foresee)
def nf4(
    parent: Checkpoint, out: Path, *, quant_type: Literal["nf4", "fp4"] = "nf4", double_quant: bool = False
) -> None:
    """Quantise every linear layer but the head; `double_quant` quantises the block scales too."""
    with dense(parent, out, "nf4") as source:
        import torch
        from transformers import AutoConfig, BitsAndBytesConfig

        # Layers compute in the dtype of their surroundings: anything else would cast at every layer.
        dtype = AutoConfig.from_pretrained(source, local_files_only=True).dtype or torch.float32
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=quant_type,
            bnb_4bit_use_double_quant=double_quant,
            bnb_4bit_compute_dtype=dtype,
        )
        model = load(source, quantization_config=config)
        # Before any forward: the first one repacks the weights for the CPU kernel, and saved after that the file
        # holds other weights than those that were measured, without a warning.
        save(model, out, source)
        _check_reload(model, out)


def _check_reload(model: Any, out: Path) -> None:
    import torch

    again = load(out)
    ids = torch.arange(min(model.config.vocab_size, 64), device=model.device)[None]
    with torch.no_grad():
        before, after = model(ids).logits, again(ids).logits
    if not torch.equal(before, after):
        worst = (before - after).abs().max().item()
        raise WeighinError(f"nf4: the saved weights answer differently when reloaded (logits differ by {worst:.3g})")
