"""Planted truths of the suite memory: buffers of known size in a process of their own, caches and activations."""

import subprocess
import sys
from collections.abc import Iterator

from weighin.harness import Checkpoint
from weighin.harness.model import Loading, TransformersModel
from weighin.harness.plant import Recovered, Target, plant
from weighin.harness.reference import reference_path
from weighin.suites._allocations import counted
from weighin.suites.memory import memory

PROBE = """
import sys, mmap
from weighin.harness.model import process_memory
before = process_memory("VmRSS")
kept = mmap.mmap(-1, int(sys.argv[1]))
if sys.argv[2] == "touched":
    for page in range(0, len(kept), mmap.PAGESIZE):
        kept[page] = 1
print(process_memory("VmHWM") - before)
"""


@plant()
def buffers_of_known_size() -> Iterator[Recovered]:
    """64 MiB to 1 GiB of memory, written to or only asked for, each in a process of its own."""
    for size, use in ((64, "touched"), (256, "touched"), (1024, "touched"), (1024, "untouched")):
        command = [sys.executable, "-c", PROBE, str(size << 20), use]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found, planted = float(said) / 2**20, float(size if use == "touched" else 0)
        target = Target("in", planted, 0.02 * size)
        yield Recovered("peak of the process", f"{size} MiB {use}", found, target, unit="MiB", planted=planted)


@plant(needs=("torch", "transformers"))
def caches_of_known_size() -> Iterator[Recovered]:
    """The slope measured on a reference model against 2 x layers x key-value heads x head size x 4 B."""
    for name, planted in (("base", 2 * 4 * 2 * 64 * 4.0), ("draft", 2 * 2 * 2 * 24 * 4.0)):
        model = TransformersModel(Checkpoint(reference_path(name), name), {}, Loading(dtype="float32"))
        found = {s.metric.name: s.value for s in memory(model, new_tokens=2) if s.metric}
        for metric in ("kv_per_token", "kv_formula"):
            target = Target("in", planted, 0.01 * planted)
            yield Recovered(metric, f"reference:{name}", found[metric], target, "B/token", planted=planted)


@plant(needs=("torch",))
def tensors_of_known_size() -> Iterator[Recovered]:
    """Three tensors of 16 MiB, of which at most two live at once, and a view, which takes nothing."""
    import torch

    with torch.inference_mode(), counted() as alive:
        first = torch.ones(4 << 20)
        second = first + 1
        view = second.view(2, -1)
        del first
        third = view * 2
        del second, view, third
    peak = alive.peak / 2**20
    yield Recovered("activations", "32 MiB at once", peak, Target("=", 32, 1e-6), "MiB", planted=32.0)
    yield Recovered("activations", "all let go", alive.now / 2**20, Target("=", 0, 1e-6), "MiB", planted=0.0)
