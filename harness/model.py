"""A checkpoint reloaded from disk behind the `Model` protocol, through transformers. This is what suites measure."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from weighin.harness import older, serving
from weighin.harness.outline import read
from weighin.harness.plugin import Checkpoint, Model
from weighin.harness.runtime import Runtime
from weighin.harness.structure import pretrained


@dataclass(frozen=True)
class Loading:
    """How checkpoints are loaded and read: the spec's dtype, the dangers it allows, its scorer (see `scorer.Mode`)."""

    dtype: str = "auto"
    allow: tuple[str, ...] = ()
    scorer: Literal["exact", "fast", "plain"] = "exact"


@dataclass
class TransformersModel:
    """Implements `Model`. Weights are read at construction, onto an accelerator where there is one.

    `opens(folder, stage)` opens one that another runtime computes with.
    """

    checkpoint: Checkpoint
    relatives: Mapping[str, Checkpoint] = field(default_factory=dict)
    loading: Loading = field(default_factory=Loading)
    opens: Callable[[Path, str], Runtime] | None = None

    endpoint: Any = field(default=None, init=False)

    def __post_init__(self) -> None:
        import torch

        self.rss_before = process_memory("VmRSS")
        remote = "remote_code" in self.loading.allow
        options: dict[str, Any] = {"dtype": self.loading.dtype, "trust_remote_code": remote}
        if "pickle" not in self.loading.allow:
            options["use_safetensors"] = True
        if torch.cuda.is_available():
            options["device_map"] = "cuda"
        self.tokenizer = older.tokenizer(self.checkpoint.path, remote=remote)
        elsewhere = read(self.checkpoint.path).runtime
        self.runtime = self.opens(self.checkpoint.path, elsewhere) if self.opens and elsewhere else None
        self.module: Any = self.runtime.module if self.runtime else pretrained(self.checkpoint.path, **options).eval()
        self.served = serving.read(self.checkpoint.path)
        self.serving: Mapping[str, Any]
        self.serving, self.draft = serving.prepare(self.module, self.checkpoint.path, self.served, **options)
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self._kin: dict[str, Model | None] = {}
        self.scoring: Any = None
        """How it is scored, once that was asked for: `scorer.scoring_of` tells."""

    @property
    def window(self) -> int:
        whole = int(getattr(self.module.config, "max_position_embeddings", 0) or self.tokenizer.model_max_length)
        return whole - len(getattr(self.module, "soft_prompt", ()))

    def encode(self, text: str) -> list[int]:
        return list(self.tokenizer(text).input_ids)

    def logprobs(self, batch: list[list[int]]) -> Any:
        import torch

        width = max(len(row) for row in batch)
        pad = self.tokenizer.pad_token_id
        ids = torch.tensor([row + [pad] * (width - len(row)) for row in batch], device=self.module.device)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in batch], device=self.module.device)
        with torch.inference_mode():
            return torch.log_softmax(self.module(input_ids=ids, attention_mask=mask).logits.float(), dim=-1)

    def generate(self, prompts: list[str], *, max_new_tokens: int) -> list[str]:
        return serving.generate(self, prompts, max_new_tokens=max_new_tokens)

    def relative(self, which: Literal["parent", "root"]) -> Model | None:
        """Loaded at the first call and kept: the parent and the root of a short chain are one and the same object."""
        if which not in self._kin:
            kin = self.relatives.get(which)
            found: Model | None = None
            if kin is not None:
                found = next((m for m in self._kin.values() if m and m.checkpoint.key == kin.key), None)
                if found is None:
                    found = cast(Model, TransformersModel(kin, {}, self.loading, self.opens))
            self._kin[which] = found
        return self._kin[which]

    def weight_bytes(self) -> int:
        if self.runtime:
            return sum(weight.bytes for weight in self.runtime.weights())
        return resident_bytes(self.module) + (resident_bytes(self.draft) if self.draft is not None else 0)


def resident_bytes(module: Any) -> int:
    """Bytes of a module's weights and buffers, shared storage counted once."""
    seen: dict[tuple[str, int], int] = {}
    for tensor in tensors(module):
        storage = tensor.untyped_storage()
        seen[(str(tensor.device), storage.data_ptr())] = storage.nbytes()
    return sum(seen.values())


def process_memory(field: str) -> int | None:
    """A field of this process's /proc/self/status, B: `VmRSS` resident now, `VmHWM` its peak. None if unknown."""
    path = Path("/proc/self/status")
    for line in path.read_text().splitlines() if path.is_file() else []:
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    return None


def tensors(module: Any) -> Iterator[Any]:
    """Every plain tensor that a module keeps resident: parameters and buffers, quantised ones taken apart."""
    for _, parameter in module.named_parameters(remove_duplicate=True):
        yield from _plain(parameter)
    for _, buffer in module.named_buffers(remove_duplicate=True):
        yield from _plain(buffer)


def _plain(tensor: Any) -> Iterator[Any]:
    """A tensor subclass hides its data in inner tensors; bitsandbytes keeps its scales beside the data."""
    if hasattr(tensor, "__tensor_flatten__"):
        for name in tensor.__tensor_flatten__()[0]:
            yield from _plain(getattr(tensor, name))
        return
    yield tensor.data
    state = getattr(tensor, "quant_state", None)
    while state is not None:
        yield from (value for value in vars(state).values() if _is_tensor(value))
        state = getattr(state, "state2", None)


def _is_tensor(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor)
