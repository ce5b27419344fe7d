"""What a stage refuses before it works, what it declares, and that naming it loads nothing heavy."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import weighin.adapters
from weighin.adapters.gptq import gptq
from weighin.adapters.lora import lora
from weighin.adapters.nf4 import nf4
from weighin.adapters.prune import prune
from weighin.harness import Checkpoint
from weighin.results.errors import WeighinError


@pytest.mark.parametrize(
    ("stage", "params", "message"),
    [
        (
            gptq,
            {"group_size": 96},
            "96 does not divide the input size 128 of .*Allowed for this model: -1 .*, 64, 128; or misfit: rows$",
        ),
        (prune, {"pattern": "2:4", "sparsity": 0.3}, "only 0.5 fits .got 0.3."),
        (lora, {"target": ["no_such_layer"]}, "lora.target: .*no_such_layer"),
        (lora, {"learning_rate": 1e30}, "loss is nan at step 2 of .*Lower learning_rate"),
        (lora, {"max_length": 1}, "no document is longer than one token"),
    ],
)
def test_bad_parameters_are_refused(
    pico_dir: Path, tmp_path: Path, text_file: Path, stage: Any, params: dict[str, Any], message: str
) -> None:
    with pytest.raises(WeighinError, match=message):
        stage(Checkpoint(pico_dir, "key"), tmp_path, data=str(text_file), **params)


@pytest.mark.parametrize(
    ("stage", "params"),
    [
        (gptq, {"bits": 5}),
        (gptq, {"samples": 0}),
        (gptq, {"group_size": 0}),
        (gptq, {"group_size": -2}),
        (nf4, {"quant_type": "nf3"}),
        (prune, {"sparsity": 1.0}),
        (lora, {"rank": 0}),
    ],
)
def test_the_schema_refuses(stage: Any, params: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        stage.parameters(**params)


LIGHT = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(f"weighin.adapters.{name}")
print(*{"torch", "transformers", "datasets", "llmcompressor", "peft", "torchao", "bitsandbytes"} & set(sys.modules))
"""


def test_importing_a_stage_imports_nothing_heavy() -> None:
    names = [p.stem for p in Path(weighin.adapters.__path__[0]).glob("*.py")]
    done = subprocess.run([sys.executable, "-c", LIGHT, *names], capture_output=True, text=True, check=True)
    assert len(names) >= 5 and done.stdout.split() == []


def test_reads_names_the_data_that_counts(text_file: Path) -> None:
    for stage in (gptq, prune, lora):
        assert stage.reads is not None
        assert list(stage.reads(stage.parameters(data=str(text_file)).model_dump())) == [text_file]
    assert prune.reads is not None
    assert list(prune.reads(prune.parameters(data="nowhere.txt", method="magnitude").model_dump())) == []
