"""Scoring by common beginnings against lm-eval's Hugging Face model: `python -m benchmarks.scorer [4M|120M] [KIND...]`.

Both get the same requests as token ids of the same model with random weights, in turns, in one process; lm-eval at each
of several batch sizes. Times are of the wall clock, for a machine that does nothing else, and seconds of processor (of
all threads), which a busy machine changes less; waiting threads do not spin. A ratio is of the two times of one round,
against the batch size with the best median; between the lowest and the highest of six rounds the true median lies with
97 % (1 - 2 · 0.5^6). Peak memory is that of a process of its own for each, less what it held before the first request.
"""

import logging
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ |= {"TQDM_DISABLE": "1", "OMP_WAIT_POLICY": "PASSIVE"}
ROUNDS = 6
BATCHES = {"4M": (1, 4, 16), "120M": (1, 4)}
SIZES: dict[str, dict[str, int]] = {
    "4M": {"vocab_size": 4096, "hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 8,
           "num_attention_heads": 6, "num_key_value_heads": 3},
    "120M": {"vocab_size": 32000, "hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 15,
             "num_attention_heads": 12, "num_key_value_heads": 4},
}  # fmt: skip
QUESTIONS = {
    "4M": {"hellaswag": 32, "long": 8, "rolling": 32, "mmlu": 20},
    "120M": {"hellaswag": 8, "long": 2, "rolling": 8, "mmlu": 8},
}
WINDOW = 1024
COLUMNS = (
    "model", "task", "best batch", "lm-eval", "times faster, exact", "fast", "exact, by processor time",
    "lm-eval by batch", "computed ÷ tree", "peak memory ÷ lm-eval's", "nat apart",
)  # fmt: skip
Ids = list[int]


def requests(kind: str, size: str) -> list[tuple[None, Ids, Ids]]:
    """Contexts and continuations, tokens drawn at random with lengths like a benchmark's."""
    draw, vocabulary, count = random.Random(0), SIZES[size]["vocab_size"], QUESTIONS[size][kind]

    def tokens(least: int, most: int) -> Ids:
        return [draw.randrange(vocabulary) for _ in range(draw.randint(least, most))]

    if kind == "rolling":  # documents as lm-eval cuts them: one window each, all of it predicted after the first token
        sizes = [int(min(max(draw.lognormvariate(5.2, 0.8), 20), WINDOW - 1)) for _ in range(count)]
        return [(None, tokens(1, 1), tokens(n, n)) for n in sizes]
    header = tokens(600, 600) if kind == "mmlu" else []
    context, choice = {"hellaswag": ((40, 100), (15, 40)), "long": ((280, 320), (5, 15)), "mmlu": ((60, 120), (1, 1))}[
        kind
    ]
    contexts = [header + tokens(*context) for _ in range(count)]
    return [(None, before, tokens(*choice)) for before in contexts for _ in range(4)]


def loaded(size: str, scorer: str) -> Any:
    """The model of this size, from disk."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from weighin.harness import Checkpoint
    from weighin.harness.model import Loading, TransformersModel
    from weighin.harness.reference import reference_path

    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        config = LlamaConfig(**SIZES[size], max_position_embeddings=WINDOW, tie_word_embeddings=True)
        LlamaForCausalLM(config).save_pretrained(folder)
        AutoTokenizer.from_pretrained(reference_path("base")).save_pretrained(folder)
        return TransformersModel(Checkpoint(Path(folder), size), {}, Loading("float32", scorer=scorer))  # type: ignore[arg-type]


def way(name: str, size: str) -> Callable[[list[Any]], Any]:
    """`exact` or `fast`, or lm-eval's own with a batch size: `hf4`."""
    from lm_eval.models.huggingface import HFLM

    from weighin.suites._hflm import language_model

    if name.startswith("hf"):
        model, batch = loaded(size, "plain"), int(name[2:])
        lm: Any = HFLM(model.module, tokenizer=model.tokenizer, batch_size=batch, max_length=WINDOW, device="cpu")

        def rolling(asked: list[Any]) -> Any:  # as its loglikelihood_rolling does: in the documents' order
            return [
                each
                for at in range(0, len(asked), batch)
                for each in lm._loglikelihood_tokens(asked[at : at + batch], disable_tqdm=True, override_bs=batch)
            ]

        return lambda asked: rolling(asked) if len(asked[0][1]) == 1 else lm._loglikelihood_tokens(asked, True)
    lm = language_model(loaded(size, name), 16, WINDOW, None)
    return lambda asked: lm._loglikelihood_tokens(asked)


def peak(name: str, size: str, kind: str) -> float:
    """Bytes that a process needed at most beyond what it held with the model loaded and tried out."""
    command = [sys.executable, "-m", "benchmarks.scorer", "peak", name, size, kind]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def peak_here(name: str, size: str, kind: str) -> None:
    """Print what this process needs for it."""
    from weighin.harness.model import process_memory

    run = way(name, size)
    before = process_memory("VmRSS") or 0
    run(requests(kind, size))
    print((process_memory("VmHWM") or 0) - before)


def best_batch(times: dict[str, list[float]]) -> str:
    """The way of lm-eval with the least median."""
    return min((name for name in times if name.startswith("hf")), key=lambda name: statistics.median(times[name]))


def ratio(theirs: list[float], ours: list[float]) -> str:
    """Median of the rounds' ratios, the least and the largest."""
    found = [a / b for a, b in zip(theirs, ours, strict=True)]
    return f"{statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})"


def compare(size: str, kind: str, ways: dict[str, Callable[[list[Any]], Any]]) -> str:
    """One row of the table."""
    from weighin.harness.packing import Shapes, packs
    from weighin.harness.prefix_tree import Request, build

    asked = requests(kind, size)
    clocks: dict[str, list[float]] = {name: [] for name in ways}
    times: dict[str, list[float]] = {name: [] for name in ways}
    answers: dict[str, Any] = {}
    for _ in range(ROUNDS):
        for name, run in ways.items():
            began, clock = time.process_time(), time.perf_counter()
            answers[name] = run(asked)
            times[name].append(time.process_time() - began)
            clocks[name].append(time.perf_counter() - clock)
    best = best_batch(clocks)
    tree = build([Request(tuple(context + choice), len(choice)) for _, context, choice in asked])
    filled = sum(len(pack.tokens) for pack in packs(tree, Shapes())) / tree.nodes
    apart = max(abs(a[0] - b[0]) for a, b in zip(answers[best], answers["exact"], strict=True))
    cells = [size, kind, best.removeprefix("hf"), f"{statistics.median(clocks[best]):.2f} s"]
    cells += [ratio(clocks[best], clocks[name]) for name in ("exact", "fast")]
    cells.append(ratio(times[best_batch(times)], times["exact"]))
    theirs = {name.removeprefix("hf"): statistics.median(each) for name, each in clocks.items() if "hf" in name}
    cells.append(", ".join(f"{batch}: {median:.2f} s" for batch, median in theirs.items()))
    more = peak("exact", size, kind) / peak(best, size, kind)
    return "| " + " | ".join([*cells, f"{filled:.2f}", f"{more:.2f}", f"{apart:.0e}"]) + " |"


def main(argv: list[str]) -> None:
    """The table, row by row."""
    logging.disable(logging.WARNING)
    if argv[:1] == ["peak"]:
        peak_here(*argv[1:])
        return
    print(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|")
    for size in [a for a in argv if a in SIZES] or SIZES:
        ways = {name: way(name, size) for name in (*(f"hf{n}" for n in BATCHES[size]), "exact", "fast")}
        for kind in [a for a in argv if a in QUESTIONS[size]] or QUESTIONS[size]:
            print(compare(size, kind, ways), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
