"""GGUF: the model written for llama.cpp, with weights of 32, 16, 8 or about 4 bits, served and scored by it.

Library: llama.cpp through llama-cpp-python, compiled in an environment of its own; the file is written with the `gguf`
package and quantised by llama.cpp itself. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
Papers: the formats have none (https://github.com/ggml-org/llama.cpp/pull/1684); rows of queries and keys are reordered,
for llama.cpp turns neighbours by rope as RoFormer does (arXiv 2104.09864) and transformers does not.

Costs: seconds to minutes. Buys: a model as laptops and phones will serve it. Q8_0 has one 16-bit scale for 32 weights;
Q4_K_M has 4-bit weights in blocks of 256 and keeps half of the value and down projections, and the head, at 6 bits.
Activations of a quantised product are rounded to 8 bits, too, and the key-value cache has 16 bits unless told.

The file holds no vocabulary: texts become tokens by the checkpoint's own tokenizer, beside it, and llama.cpp is given
numbers. So no tokenizer is approximated by one that llama.cpp knows; a server of llama.cpp must be given it, too.
"""
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
# (what is imported here is installed in an environment of its own)

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from weighin.adapters._export import companions, exportable
from weighin.adapters._gguf import FILE, HEADS, SETTINGS, LlamaCpp, hush, pairs_beside, theirs
from weighin.harness import Checkpoint, Outline, WeighinError, stage

FORMATS = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "q8_0": "MOSTLY_Q8_0", "q4_k_m": "MOSTLY_Q4_K_M"}


def _foresee(parent: Outline, params: Mapping[str, Any]) -> Outline:
    config = parent.config
    if config.get("model_type") != "llama":
        raise WeighinError(f"the parent is of the type {config.get('model_type')!r}. Allowed: llama")
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        raise WeighinError(f"the parent's rope is of the type {kind!r}, which is not written here. Allowed: default")
    if config.get("attention_bias") or config.get("mlp_bias"):
        raise WeighinError("the parent's layers have biases, which are not written here")
    return exportable("gguf", parent)


@stage(
    needs=("llama_cpp", "gguf", "transformers", "torch"),
    environment="gguf",
    changes="runtime",
    opens=LlamaCpp,
    foresee=_foresee,
    example={"quantization": "q8_0"},
)
def gguf(
    parent: Checkpoint,
    out: Path,
    *,
    quantization: Literal["f32", "f16", "q8_0", "q4_k_m"] = "q4_k_m",
    cache: Literal["f32", "f16"] = "f16",
) -> None:
    """Write the model and quantise it as llama.cpp does by that name. `cache`: of keys and values, when it is served.

    A matrix whose rows do not come out even (blocks of 256 for Q4_K_M, of 32 for Q8_0) gets what llama.cpp falls back
    to, with more bits: the identity names each, and counts the formats.
    """
    import llama_cpp
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(str(parent.path), local_files_only=True, dtype="float32")
    hush()
    whole = out / (FILE if quantization == "f32" else "whole.gguf")
    _write(model, whole)
    if quantization != "f32":
        how = llama_cpp.llama_model_quantize_default_params()
        how.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_{FORMATS[quantization]}")
        if llama_cpp.llama_model_quantize(bytes(whole), bytes(out / FILE), how):
            raise WeighinError(f"llama.cpp could not make {quantization} of {parent.path}")
        whole.unlink()
    model.config.save_pretrained(out)
    companions(parent.path, out)
    (out / SETTINGS).write_text(json.dumps({"quantization": quantization, "cache": cache}) + "\n", encoding="utf-8")


def _write(model: Any, file: Path) -> None:
    """The model's weights, float32, under llama.cpp's names, without a vocabulary."""
    import gguf as format_

    config = model.config
    writer = format_.GGUFWriter(str(file), "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("none")
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        value, short = tensor.float().numpy(), theirs(name.removesuffix(".weight"))
        heads = HEADS.get(short.rpartition(".")[2])
        writer.add_tensor(f"{short}.weight", pairs_beside(value, getattr(config, heads)) if heads else value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
