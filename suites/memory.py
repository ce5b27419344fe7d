"""Memory: weights on disk and resident, key-value cache per token, peak of the process.

Resident weights are counted after a forward, since some formats unpack to dense at the first one. The cache is the
slope of its bytes over two context lengths. The peak is the high-water mark of the process's resident memory, loading
included, less what interpreter and libraries held before: each variant is weighed in a process of its own.
"""

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import Field

from weighin.harness import Metric, Model, Sample, suite
from weighin.harness.checkpoints import disk_bytes
from weighin.harness.model import process_memory
from weighin.suites._generate import arrivals, prompt_ids

DISK = Metric("disk", unit="B", better="lower")
WEIGHTS = Metric("weights", unit="B", better="lower", runtime=True)
KV = Metric("kv_per_token", unit="B/token", better="lower", runtime=True)
PEAK = Metric("peak_rss", unit="B", better="lower", reduce="max", runtime=True)


@suite(DISK, WEIGHTS, KV, PEAK, needs=("torch", "transformers"), example={"new_tokens": 4})
def memory(model: Model, *, new_tokens: Annotated[int, Field(gt=1)] = 32) -> Iterator[Sample]:
    """Yield one sample a metric, and two of the peak: after loading and after generating."""
    loaded = process_memory("VmHWM")
    arrivals(model, prompt_ids(model, 32), new_tokens)
    yield Sample("checkpoint", float(disk_bytes(model.checkpoint.path)), DISK)
    yield Sample("checkpoint", float(model.weight_bytes()), WEIGHTS)
    short, long = 16, min(144, model.window - 1)
    slope = (_cache_bytes(model, long) - _cache_bytes(model, short)) / (long - short)
    yield Sample("cache", slope, KV, detail={"lengths": [short, long]})
    for item, peak in (("loaded", loaded), ("generated", process_memory("VmHWM"))):
        if peak is None or model.rss_before is None:
            yield Sample(item, None, PEAK, reason="this system does not tell a process's peak (no /proc/self/status)")
        else:
            yield Sample(item, float(peak - model.rss_before), PEAK, detail={"before": model.rss_before})


def _cache_bytes(model: Model, tokens: int) -> int:
    """Bytes of the key-value cache after a prompt of so many tokens, batch 1."""
    import torch

    ids = torch.tensor([prompt_ids(model, tokens)], device=model.module.device)
    with torch.inference_mode():
        cache: Any = model.module(input_ids=ids, use_cache=True).past_key_values
    found = [t for layer in cache.layers for t in vars(layer).values() if isinstance(t, torch.Tensor)]
    return sum(t.numel() * t.element_size() for t in found)
