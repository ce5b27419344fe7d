"""Run one llm-compressor modifier over calibration documents."""

from pathlib import Path
from typing import Any, NamedTuple

from weighin.adapters._hf import fit, load_tokenizer
from weighin.harness.text import documents, encode


class Calibration(NamedTuple):
    """Which documents a stage calibrates on."""

    data: str
    samples: int
    max_length: int
    seed: int


def calibrate(model: Any, modifier: Any, source: Path, text: Calibration) -> None:
    """Change `model` in place, and leave it a plain `transformers` model.

    One document is one sequence: no padding, so no padded position enters the statistics.
    """
    from compressed_tensors.offload import remove_dispatch
    from datasets import Dataset
    from llmcompressor.entrypoints.oneshot import oneshot

    tokenizer = load_tokenizer(source)
    texts = documents(text.data, samples=text.samples, seed=text.seed)
    rows = encode(tokenizer, texts, fit(model, text.max_length))
    oneshot(
        model=model,
        tokenizer=tokenizer,
        recipe=[modifier],
        dataset=Dataset.from_dict({"input_ids": rows, "attention_mask": [[1] * len(row) for row in rows]}),
        num_calibration_samples=len(rows),
        max_seq_length=max(map(len, rows)),
        # Our own seeded order stands; the library's shuffle draws from whatever torch's global state is.
        shuffle_calibration_samples=False,
    )
    remove_dispatch(model)
    # The library's own saving looks for further files on the hub, takes over Python files from the parent, and writes
    # a YAML recipe with Python objects in it.
    vars(model).pop("save_pretrained", None)
