"""What the fork server does once for all jobs, because each would pay for it anew.

It finds this machine's energy meters, and loads a model: only then does transformers import what reads weights, and
compile the hundreds of patterns by which it knows tensors of older releases.
"""

import contextlib
import tempfile
from importlib.util import find_spec


def load_a_model() -> None:
    """Write a model of a few weights, and load it as every job loads its own."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    # So small that torch starts no threads for it: they would not live on in the processes that are forked from here.
    config = LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    with tempfile.TemporaryDirectory() as folder:
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        AutoModelForCausalLM.from_pretrained(folder)


if find_spec("codecarbon") is not None:
    from weighin.harness.meter import Meter

    Meter()

with contextlib.suppress(Exception):  # where nothing can be loaded, each job says so of its own model
    load_a_model()
