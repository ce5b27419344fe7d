"""Memory: weights on disk and resident, key-value cache per token, activations, peaks of the process and the device.

Resident weights are counted after a forward, since some formats unpack to dense at the first one. The cache is the
slope of its bytes over two context lengths; beside it stands what the configuration promises: 2 (keys, values) x layers
x key-value heads x head size x bytes a number. Activations are the most bytes that the operations of one forward pass
over a prompt keep alive at once, logits included. The peak is the high-water mark of the process's resident memory,
loading included, less what interpreter and libraries held before: each variant is weighed in a process of its own.
"""

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import Field

from weighin.harness import Metric, Model, Sample, suite
from weighin.harness.checkpoints import disk_bytes
from weighin.harness.model import process_memory, tensors
from weighin.suites._allocations import counted
from weighin.suites._generate import arrivals, prompt_ids

DISK = Metric("disk", unit="B", better="lower")
WEIGHTS = Metric("weights", unit="B", better="lower", runtime=True)
KV = Metric("kv_per_token", unit="B/token", better="lower", runtime=True)
KV_FORMULA = Metric("kv_formula", unit="B/token", better="lower", runtime=True)
ACTIVATIONS = Metric("activations", unit="B", better="lower", runtime=True)
PEAK = Metric("peak_rss", unit="B", better="lower", reduce="max", runtime=True)
DEVICE = Metric("peak_device", unit="B", better="lower", reduce="max", runtime=True)


@suite(
    DISK,
    WEIGHTS,
    KV,
    KV_FORMULA,
    ACTIVATIONS,
    PEAK,
    DEVICE,
    needs=("torch", "transformers"),
    example={"new_tokens": 4, "prompt_tokens": 16},
)
def memory(
    model: Model,
    *,
    new_tokens: Annotated[int, Field(gt=1)] = 32,
    prompt_tokens: Annotated[int, Field(gt=0)] = 64,
) -> Iterator[Sample]:
    """Yield one sample a metric, and two of the peak: after loading and after generating."""
    loaded = process_memory("VmHWM")
    arrivals(model, prompt_ids(model, 32), new_tokens)
    generated = process_memory("VmHWM")
    yield Sample("checkpoint", float(disk_bytes(model.checkpoint.path)), DISK)
    yield Sample("checkpoint", float(model.weight_bytes()), WEIGHTS)
    yield _cache(model)
    promised = _promised(model)
    reason = None if promised else "the configuration does not tell its heads and layers"
    yield Sample("cache", promised, KV_FORMULA, reason=reason)
    if model.runtime:
        why = f"{model.runtime.name} allocates by itself, out of sight of what counts PyTorch's tensors"
        yield Sample("forward", None, ACTIVATIONS, reason=why)
    else:
        alive = _activations(model, prompt_tokens)
        yield Sample("forward", alive, ACTIVATIONS, detail={"prompt_tokens": prompt_tokens})
    for item, peak in (("loaded", loaded), ("generated", generated)):
        if peak is None or model.rss_before is None:
            yield Sample(item, None, PEAK, reason="this system does not tell a process's peak (no /proc/self/status)")
        else:
            yield Sample(item, float(peak - model.rss_before), PEAK, detail={"before": model.rss_before})
    yield _device(model)


def _cache(model: Model) -> Sample:
    """The slope of the cache's bytes over two lengths of the prompt."""
    short, long = 16, min(144, model.window - 1)
    small, large = _cache_bytes(model, short), _cache_bytes(model, long)
    if small is None or large is None:
        return Sample("cache", None, KV, reason="its runtime does not tell how large the cache is that it keeps")
    return Sample("cache", (large - small) / (long - short), KV, detail={"lengths": [short, long]})


def _cache_bytes(model: Model, tokens: int) -> int | None:
    """Bytes of the key-value cache after a prompt of so many tokens, batch 1; None where a runtime does not tell."""
    import torch

    if model.runtime:
        return model.runtime.cache_bytes(prompt_ids(model, tokens))
    ids = torch.tensor([prompt_ids(model, tokens)], device=model.module.device)
    with torch.inference_mode():
        cache: Any = model.module(input_ids=ids, use_cache=True).past_key_values
    found = [t for layer in cache.layers for t in vars(layer).values() if isinstance(t, torch.Tensor)]
    return sum(t.numel() * t.element_size() for t in found)


def _promised(model: Model) -> float | None:
    """Bytes of cache a token by the configuration; None where it does not tell."""
    config = model.module.config
    heads = getattr(config, "num_attention_heads", None)
    layers, hidden = getattr(config, "num_hidden_layers", None), getattr(config, "hidden_size", None)
    if not (heads and layers and hidden):
        return None
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    size = getattr(config, "head_dim", None) or hidden // heads
    return float(2 * layers * kv_heads * size * model.module.dtype.itemsize)


def _activations(model: Model, prompt_tokens: int) -> float:
    import torch

    ids = torch.tensor([prompt_ids(model, prompt_tokens)], device=model.module.device)
    with torch.inference_mode(), counted([*tensors(model.module), ids]) as alive:
        model.module(input_ids=ids, use_cache=False)
    return float(alive.peak)


def _device(model: Model) -> Sample:
    import torch

    if model.module.device.type != "cuda":
        return Sample("device", None, DEVICE, reason="the model is not on an accelerator, whose allocator would tell")
    return Sample("device", float(torch.cuda.max_memory_allocated(model.module.device)), DEVICE)
