"""Is an export really faster than PyTorch? `python -m benchmarks.openvino`, once `weighin setup openvino` is done.

A Llama of random weights in float32 (119 M that a step computes with, and the table of its embedding) and its OpenVINO
exports, at batch 1, a prompt of 64 tokens and 32 new ones, weighed by the suites `latency` and `memory` as any spec
would have it. Each export is timed beside PyTorch in one process, block by block in random order: a ratio is of the two
times of one block, below 1 where the export is faster.
"""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

LAYERS: dict[str, int] = {
    "vocab_size": 32000, "hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 15,
    "num_attention_heads": 12, "num_key_value_heads": 4, "max_position_embeddings": 1024,
}  # fmt: skip
VARIANTS: dict[str, Any] = {
    "OpenVINO FP32": {"openvino": {"bits": 32}},
    "OpenVINO INT8": {"openvino": {"bits": 8}},
    "OpenVINO INT4": {"openvino": {"bits": 4, "group_size": 64, "symmetric": True}},
}
SUITES: dict[str, Any] = {"latency": {"requests": 6, "blocks": 12, "rounds": 1}, "memory": {}}
SHOWN = ("latency.wall_ratio_parent", "latency.cpu_ratio_parent", "memory.disk", "memory.weights", "memory.peak_rss")


def write_model(out: Path) -> None:
    """The model, with the reference tokenizer, whose ids its vocabulary includes."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from weighin.harness.reference import reference_path

    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**LAYERS, bos_token_id=0, eos_token_id=1, pad_token_id=2)).save_pretrained(out)
    AutoTokenizer.from_pretrained(reference_path("base")).save_pretrained(out)


def main() -> None:
    """Weigh, and print a line a variant."""
    from rich.console import Console

    from weighin.harness.plan import job_names, make_plan
    from weighin.harness.progress import Display
    from weighin.harness.run import weigh
    from weighin.harness.spec import parse_spec
    from weighin.results.render import interval
    from weighin.results.store import Store

    folder = Path(tempfile.mkdtemp(prefix="weighin-benchmark-"))
    try:
        write_model(folder / "model")
        base = {"model": str(folder / "model"), "dtype": "float32"}
        store = Store(folder / "weighin.duckdb")
        plan = make_plan(parse_spec({"base": base, "variants": VARIANTS, "suites": SUITES}), store)
        assert plan is not None
        for environment in plan.not_set_up():
            raise SystemExit(environment.missing)
        with Display(Console(stderr=True), job_names(plan), {}) as display:
            run, _ = weigh(plan, store, display)
        found = {
            (row["variant"], f"{row['suite']}.{row['metric']}"): row
            for row in store.rows("select * from scores where run_id = ?", [run])
        }
        kernels = {r["variant"]: r["kernel"] for r in store.rows("select * from variant_cards where run_id = ?", [run])}
        print("| variant |", " | ".join(name.split(".")[1] for name in SHOWN), "| kernel |")
        print("|" + "---|" * (len(SHOWN) + 2))
        for label in ("base", *VARIANTS):
            cells = [found.get((label, name)) for name in SHOWN]
            texts = [interval(r["value"], r["ci_low"], r["ci_high"], r["unit"] or "1") if r else "–" for r in cells]
            print("|", " | ".join([label, *texts, kernels[label]]), "|", flush=True)
        for link in (plan.chains[label][-1].key for label in VARIANTS):
            shutil.rmtree(Path(os.environ.get("WEIGHIN_HOME", ".weighin")) / "checkpoints" / link, ignore_errors=True)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
