"""`--kv-budget`: the same bits in less memory, a clear word where a text cannot fit."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weighin.harness import Checkpoint
from weighin.harness.cli import parser
from weighin.harness.kv_budget import NAME, read, within
from weighin.harness.model import Loading, TransformersModel
from weighin.harness.packing import Shapes
from weighin.harness.prefix_tree import Request
from weighin.harness.scorer import score, scoring_of
from weighin.results.errors import WeighinError


@pytest.fixture(scope="module")
def model(pico_dir: Path) -> TransformersModel:
    made = TransformersModel(Checkpoint(pico_dir, "key"), {}, Loading("float32"))
    assert scoring_of(made).mode == "exact"
    return made


def a_layer(model: Any) -> int:
    """Bytes of a token's keys and values in one layer, as a forward pass makes them."""
    import torch

    out = model.module(input_ids=torch.tensor([[1, 2, 3]]), use_cache=True)
    layer = out.past_key_values.layers[0]
    return int((layer.keys.nbytes + layer.values.nbytes) // 3)


def test_a_small_budget_makes_small_packs_with_the_same_bits(
    model: TransformersModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [Request((1, *range(5, 60), 70 + i, *range(5 + i, 40)), 20) for i in range(12)]
    whole = score(model, requests)
    longest = max(len(each.ids) for each in requests) - 1
    layers = model.module.config.num_hidden_layers
    least = (longest * layers + 64) * a_layer(model)
    monkeypatch.setenv(NAME, str(least))
    tree = scoring_of(model).tree
    assert tree is not None
    assert within(model.module, longest, tree.shapes).tokens == 64
    assert score(model, requests) == whole, "bit for bit"
    monkeypatch.setenv(NAME, str(least - 1))
    with pytest.raises(WeighinError, match=rf"is too small: a text of {longest} tokens takes"):
        score(model, requests)


def test_without_a_word_the_free_memory_bounds_it(model: TransformersModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(NAME, raising=False)
    assert within(model.module, 100, Shapes()) == Shapes()
    with pytest.raises(WeighinError, match="a quarter of the free memory"):
        within(model.module, 2**40, Shapes())


@given(st.integers(1, 2**40))
def test_bytes_are_read_as_they_are_written(count: int) -> None:
    assert read(str(count)) == count
    assert read(f"{count} KiB") == read(f"{count}KiB") == count * 1024


@pytest.mark.parametrize("text", ["0", "-1", "many", "3 MB", "1e9", "", "nan", "512 MiB or so"])
def test_what_is_no_number_of_bytes_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(["run", f"--kv-budget={text}"])
    assert "bytes, or a number of KiB, MiB, GiB" in capsys.readouterr().err


def test_the_command_line_takes_it() -> None:
    assert parser().parse_args(["run", "--kv-budget", "1.5MiB"]).kv_budget == 3 * 2**19
