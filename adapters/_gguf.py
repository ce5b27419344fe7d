"""A GGUF file opened by llama.cpp: what it computes with, and a module that reads and continues tokens by it."""
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
# (what is imported here is installed in an environment of its own)

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from weighin.harness import WeighinError, Weight

FILE = "model.gguf"
SETTINGS = "gguf.json"
"""How the weights were asked for, and how the cache is kept."""
NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip
"""Of Llama's layers, what llama.cpp calls them."""
HEADS = {"attn_q": "num_attention_heads", "attn_k": "num_key_value_heads"}
"""Matrices that llama.cpp's rope wants in another order, and which of config.json's fields counts their heads."""
DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
MEANT = {"f32": {"F32"}, "f16": {"F16"}, "q8_0": {"Q8_0"}, "q4_k_m": {"Q4_K", "Q6_K"}}
"""Formats that a quantisation gives to matrices where nothing falls back."""
UNITS = ("AMX_INT8", "AVX512_VNNI", "AVX_VNNI", "AVX512", "AVX2", "AVX", "MATMUL_INT8", "SVE", "DOTPROD", "NEON")
"""Of the processor's units that llama.cpp was compiled for, the best first."""
AT_ONCE = 512
"""Tokens of one decoding."""
TOGETHER = 64
"""Sequences that are continued together; llama.cpp has room for 256."""
ERROR = 4
"""ggml's level of messages that tell of an error."""
ROOM = 1024
"""Tokens a sequence for which there is room from the first."""


class LlamaCpp:
    """Implements `Runtime`. As many threads as PyTorch would take, so that the two are timed alike."""

    name = "gguf"

    def __init__(self, folder: Path) -> None:
        self.file = folder / FILE
        self.asked: dict[str, str] = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        self.reader = Reader(self.file, self.asked["cache"])
        self.module: Any = _module(folder, self.reader)

    def weights(self) -> Iterator[Weight]:
        """The file's tensors, which are read into memory whole; llama.cpp may reorder their blocks."""
        for tensor in self._tensors():
            kind: str = tensor.tensor_type.name
            name = ours(tensor.name.removesuffix(".weight"))
            value = _Value(tensor, self.module.config) if len(tensor.shape) > 1 else None
            yield Weight(name, DTYPES.get(kind, kind.lower()), int(tensor.n_elements), int(tensor.n_bytes), value)

    def kernel(self, ids: list[int]) -> str:
        """By the format of most weights and the best unit it is compiled for: llama.cpp has no profile to ask."""
        import llama_cpp

        spent: Counter[str] = Counter()
        for tensor in self._matrices():
            spent[tensor.tensor_type.name.lower()] += int(tensor.n_elements)
        on = set(re.findall(r"(\w+) = 1", llama_cpp.llama_print_system_info().decode()))
        unit = next((each for each in UNITS if each in on), "no vector unit")
        return f"mul_mat {spent.most_common(1)[0][0]}, {unit}"

    def cache_bytes(self, ids: list[int]) -> int | None:
        """Of the sequence's state as llama.cpp would save it: keys, values and a few bytes a token of bookkeeping."""
        import llama_cpp

        self.reader.whole(ids)
        return int(llama_cpp.llama_state_seq_get_size(self.reader.context, 0))

    def settings(self) -> Mapping[str, Any]:
        """What was asked for, and the matrices that got another format since their rows do not come out even."""
        meant = MEANT[self.asked["quantization"]]
        fallen = {each.name: each.tensor_type.name.lower() for each in self._matrices()}
        fallen = {name: kind for name, kind in fallen.items() if kind.upper() not in meant}
        return {**self.asked, **({"fallen_back": fallen} if fallen else {})}

    def _tensors(self) -> list[Any]:
        from gguf import GGUFReader

        return list(GGUFReader(self.file).tensors)

    def _matrices(self) -> list[Any]:
        return [tensor for tensor in self._tensors() if len(tensor.shape) > 1]


class Reader:
    """llama.cpp's model and context, given tokens and giving logits; keeps what it read last."""

    def __init__(self, file: Path, cache: str) -> None:
        import llama_cpp
        import torch

        hush()
        llama_cpp.llama_backend_init()
        options = llama_cpp.llama_model_default_params()
        options.n_gpu_layers = 0
        options.use_mmap = False  # what is resident is counted, and a mapped file is not
        self.model = llama_cpp.llama_model_load_from_file(bytes(file), options)
        if not self.model:
            raise WeighinError(f"{file}: llama.cpp cannot load it")
        self.vocabulary = int(llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model)))
        self.cache, self.threads = cache, torch.get_num_threads()
        self.context: Any = None
        self.room = (0, 0)
        self.seen: list[list[int]] = []

    def whole(self, row: list[int]) -> Any:
        """Logits after every token of a row, float32 (tokens, vocabulary), read anew."""
        self._begin(1, len(row))
        return self._decode([(0, place, token, True) for place, token in enumerate(row)])

    def last(self, rows: list[list[int]]) -> Any:
        """Logits after each row's last token, float32 (rows, vocabulary).

        Rows that are those of the last call, each with one token more, are continued; all others are read anew.
        """
        import numpy as np

        if len(rows) > TOGETHER:
            return np.concatenate([self.whole(row)[-1:] for row in rows])
        longest = max(map(len, rows))
        if [row[:-1] for row in rows] != self.seen or longest > self.room[1]:
            self._begin(len(rows), longest)
        todo = [
            (number, place, row[place], place == len(row) - 1)
            for number, row in enumerate(rows)
            for place in range(len(self.seen[number]) if self.seen else 0, len(row))
        ]
        found = self._decode(todo)
        self.seen = [list(row) for row in rows]
        return found

    def _begin(self, rows: int, longest: int) -> None:
        """An empty cache with room for so many rows of so many tokens."""
        import llama_cpp

        self.seen = []
        if rows > self.room[0] or longest > self.room[1]:
            self._open(max(rows, self.room[0]), max(2 * longest if longest > ROOM else ROOM, self.room[1]))
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)

    def _open(self, rows: int, length: int) -> None:
        import llama_cpp

        if self.context:
            llama_cpp.llama_free(self.context)
        options = llama_cpp.llama_context_default_params()
        options.n_ctx, options.n_seq_max, options.kv_unified = rows * length, rows, True
        options.n_batch = options.n_ubatch = options.n_outputs_max = options.n_outputs_max_per_seq = AT_ONCE
        options.n_threads = options.n_threads_batch = self.threads
        options.type_k = options.type_v = getattr(llama_cpp, f"GGML_TYPE_{self.cache.upper()}")
        options.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self.context = llama_cpp.llama_init_from_model(self.model, options)
        if not self.context:
            raise WeighinError(f"llama.cpp has no memory for {rows} sequences of {length} tokens")
        self.room = (rows, length)

    def _decode(self, todo: list[tuple[int, int, int, bool]]) -> Any:
        """Read (sequence, place, token, whether logits are wanted), and give the logits that are, in order."""
        import llama_cpp
        import numpy as np

        found = []
        for some in (todo[start : start + AT_ONCE] for start in range(0, len(todo), AT_ONCE)):
            batch = llama_cpp.llama_batch_init(len(some), 0, 1)
            try:
                batch.n_tokens = len(some)
                for i, (sequence, place, token, wanted) in enumerate(some):
                    batch.token[i], batch.pos[i], batch.logits[i] = token, place, wanted
                    batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
                if code := llama_cpp.llama_decode(self.context, batch):
                    raise WeighinError(f"llama.cpp cannot decode {len(some)} tokens (code {code})")
            finally:
                llama_cpp.llama_batch_free(batch)
            count = sum(each[3] for each in some)
            if count:
                logits = llama_cpp.llama_get_logits(self.context)
                found.append(np.ctypeslib.as_array(logits, (count, self.vocabulary)).copy())
        return np.concatenate(found)


@cache
def hush() -> Any:
    """Of what llama.cpp says, only errors go on to stderr; gives the callback, which must live as long as it speaks."""
    import llama_cpp

    def said(level: int, text: bytes, _: Any) -> None:
        if level == ERROR:
            sys.stderr.write(text.decode(errors="replace"))

    callback = llama_cpp.llama_log_callback(said)
    llama_cpp.llama_log_set(callback, None)
    return callback


def theirs(layer: str) -> str:
    """`model.layers.0.mlp.up_proj` as llama.cpp calls it, `blk.0.ffn_up`. KeyError: it has no such layer."""
    match = re.fullmatch(r"model\.layers\.(\d+)\.(.+)", layer)
    return f"blk.{match[1]}.{NAMES[match[2]]}" if match else NAMES[layer]


def ours(layer: str) -> str:
    """The other way round."""
    back = {short: name for name, short in NAMES.items()}
    match = re.fullmatch(r"blk\.(\d+)\.(.+)", layer)
    return f"model.layers.{match[1]}.{back[match[2]]}" if match else back[layer]


def pairs_beside(matrix: Any, heads: int) -> Any:
    """Rows of each head in llama.cpp's order: the two that rope turns together side by side, not half a head apart."""
    return matrix.reshape(heads, 2, -1, matrix.shape[1]).swapaxes(1, 2).reshape(matrix.shape)


def pairs_apart(matrix: Any, heads: int) -> Any:
    """The other way round."""
    return matrix.reshape(heads, -1, 2, matrix.shape[1]).swapaxes(1, 2).reshape(matrix.shape)


class _Value:
    """The float32 matrix that a tensor of the file stands for, in PyTorch's order."""

    def __init__(self, tensor: Any, config: Any) -> None:
        self.tensor, self.config = tensor, config

    def __call__(self) -> Any:
        import numpy as np
        from gguf.quants import dequantize

        matrix = np.array(dequantize(self.tensor.data, self.tensor.tensor_type), dtype=np.float32)
        heads = HEADS.get(self.tensor.name.removesuffix(".weight").rpartition(".")[2])
        return pairs_apart(matrix, getattr(self.config, heads)) if heads else matrix


def _module(folder: Path, reader: Reader) -> Any:
    """The architecture as transformers knows it, emptied of its layers: `generate` is its, and logits llama.cpp's.

    The whole text so far is asked for at each token, as without a cache; it is the reader that keeps one.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    config = AutoConfig.from_pretrained(str(folder), local_files_only=True)
    with torch.device("meta"):
        module = AutoModelForCausalLM.from_config(config)
    for child in list(module._modules):
        delattr(module, child)
    module.register_parameter("nothing", torch.nn.Parameter(torch.empty(0), requires_grad=False))
    if (folder / "generation_config.json").is_file():
        module.generation_config = GenerationConfig.from_pretrained(str(folder), local_files_only=True)
    module.generation_config.use_cache = False
    module.forward = _forward(reader)
    module.tie_weights = lambda *_, **__: None  # lm-eval asks for it, and there are none
    return module.eval()


def _forward(reader: Reader) -> Any:
    def forward(input_ids: Any, attention_mask: Any = None, logits_to_keep: int = 0, **rest: Any) -> Any:
        """Logits of every token, or of the last where one is to be kept; zeros where the mask hides a token."""
        import torch
        from transformers.modeling_outputs import CausalLMOutputWithPast

        shown = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        rows = [row[mask.bool()].tolist() for row, mask in zip(input_ids, shown, strict=True)]
        if logits_to_keep == 1 and bool(shown[:, -1].all()):
            last: Any = torch.from_numpy(reader.last(rows))[:, None]
            return CausalLMOutputWithPast(logits=last)
        logits: Any = torch.zeros(*input_ids.shape, reader.vocabulary)
        for number, (row, mask) in enumerate(zip(rows, shown, strict=True)):
            logits[number, mask.bool()] = torch.from_numpy(reader.whole(row))
        return CausalLMOutputWithPast(logits=logits[:, -logits_to_keep:] if logits_to_keep else logits)

    return forward
