"""Merging: what mergekit makes is what the published formulae give, computed here by hand."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tests.shapes import IDS, logits, tiny, weights
from weighin.adapters._hf import load
from weighin.adapters.lora import lora
from weighin.adapters.merge import merge
from weighin.harness import Checkpoint, Outline
from weighin.results.errors import WeighinError

Make = Callable[..., Path]
NORM = "model.norm.weight"


@pytest.fixture(scope="module")
def tuned(pico_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A base and three models that have moved away from it, each its own way."""
    found = {"base": pico_dir}
    for seed, name in enumerate(("a", "b", "c")):
        found[name] = tmp_path_factory.mktemp(name)
        shutil.copytree(pico_dir, found[name], dirs_exist_ok=True)
        draw = torch.Generator().manual_seed(seed)
        moved = {n: w + 0.05 * torch.randn(w.shape, generator=draw) for n, w in weights(pico_dir).items()}
        save_file(moved, found[name] / "model.safetensors", {"format": "pt"})
    return found


@pytest.fixture(scope="module")
def make(tuned: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Merge models by their names; the same merge only once."""
    made: dict[str, Path] = {}

    def run(parent: str, *others: str, again: int = 0, base: str | None = None, **params: Any) -> Path:
        name = f"{parent} {others} {base} {again} {sorted(params.items())}"
        if name not in made:
            made[name] = tmp_path_factory.mktemp("merged")
            named = [Checkpoint(tuned[other], other) for other in others]
            ancestor = Checkpoint(tuned[base], base) if base else None
            merge(Checkpoint(tuned[parent], parent), made[name], with_=named, base=ancestor, **params)
        return made[name]

    return run


def apart(tuned: dict[str, Path], name: str) -> dict[str, torch.Tensor]:
    """A model's task vector: its weights less those of the base."""
    ours, base = weights(tuned[name]), weights(tuned["base"])
    return {n: ours[n] - base[n] for n in base}


def test_a_model_with_itself_is_itself(make: Make, tuned: dict[str, Path]) -> None:
    itself = weights(tuned["a"])
    for out in (make("a", "a"), make("a", "a", "a", weights=[0.5, 0.25, 0.25]), make("a", "a", method="slerp", t=0.3)):
        assert all(torch.allclose(w, itself[n], atol=1e-6) for n, w in weights(out).items())
    assert all(torch.equal(w, itself[n]) for n, w in weights(make("a", "a")).items())


def test_half_and_half_is_the_mean(make: Make, tuned: dict[str, Path]) -> None:
    a, b, c = (weights(tuned[name]) for name in "abc")
    for name, weight in weights(make("a", "b", weights=[0.5, 0.5])).items():
        assert torch.equal(weight, (a[name] + b[name]) / 2), name
    for name, weight in weights(make("a", "b", "c")).items():
        assert torch.allclose(weight, (a[name] + b[name] + c[name]) / 3, atol=1e-6), name


def test_weights_count_as_given_and_are_normalised_if_asked(make: Make, tuned: dict[str, Path]) -> None:
    a, b = weights(tuned["a"]), weights(tuned["b"])
    for name, weight in weights(make("a", "b", weights=[3, 1])).items():
        assert torch.allclose(weight, 0.75 * a[name] + 0.25 * b[name], atol=1e-6), name
    for name, weight in weights(make("a", "b", weights=[3, 1], normalize=False)).items():
        assert torch.allclose(weight, 3 * a[name] + b[name], atol=1e-5), name


def test_slerp_goes_from_one_to_the_other_along_the_great_circle(make: Make, tuned: dict[str, Path]) -> None:
    a, b = weights(tuned["a"]), weights(tuned["b"])
    for t, end in ((0.0, a), (1.0, b)):
        for name, weight in weights(make("a", "b", method="slerp", t=t)).items():
            assert torch.allclose(weight, end[name], atol=1e-6), (t, name)
    for name, weight in weights(make("a", "b", method="slerp", t=0.25)).items():
        x, y = a[name].double(), b[name].double()
        angle = torch.acos((x * y).sum() / (x.norm() * y.norm()))
        expected = (torch.sin(0.75 * angle) * x + torch.sin(0.25 * angle) * y) / torch.sin(angle)
        if angle.cos() < 0.9995:
            assert torch.allclose(weight.double(), expected, atol=1e-5), name
    half = make("a", "b", method="slerp")
    assert torch.allclose(weights(half)[NORM], weights(make("a", "b", method="slerp", t=0.5))[NORM])


def test_ties_on_task_vectors_made_by_hand(tuned: dict[str, Path], tmp_path: Path) -> None:
    """Half of eight numbers survive; the heavier sign wins; those that have it are averaged, the rest stays put."""
    vectors = {
        "x": [4.0, -3.0, 2.0, 0.0, 0.1, 0.1, 0.1, -8.0],
        "y": [2.0, 6.0, -2.5, 0.0, 0.2, 0.0, 0.1, -4.0],
    }
    base = {**weights(tuned["base"])}
    size = base[NORM].numel()
    for name, vector in vectors.items():
        shutil.copytree(tuned["base"], tmp_path / name)
        moved = base[NORM] + torch.tensor(vector).repeat_interleave(size // 8)
        save_file({**base, NORM: moved}, tmp_path / name / "model.safetensors", {"format": "pt"})
    (tmp_path / "out").mkdir()
    x, y = (Checkpoint(tmp_path / name, name) for name in "xy")
    ancestor = Checkpoint(tuned["base"], "base")
    merge(x, tmp_path / "out", with_=[y], method="ties", base=ancestor, density=0.5)
    change = (weights(tmp_path / "out")[NORM] - base[NORM]).view(8, -1)
    expected = torch.tensor([3.0, 6.0, -2.5, 0.0, 0.0, 0.0, 0.0, -6.0])
    assert torch.allclose(change, expected[:, None].expand_as(change), atol=1e-5)


@pytest.mark.parametrize(
    ("shares", "density"), [([1.0, 1.0, 1.0], 0.5), ([0.6, 0.3, 0.5], 0.2), ([1.0, 2.0, 3.0], 1.0)]
)
def test_ties_on_whole_models(make: Make, tuned: dict[str, Path], shares: list[float], density: float) -> None:
    """Trim, elect, take the disjoint mean: TIES-Merging, algorithm 1, tensor by tensor, weighted."""
    base = weights(tuned["base"])
    merged = weights(make("a", "b", "c", base="base", method="ties", weights=shares, density=density))
    vectors = [apart(tuned, name) for name in "abc"]
    for name, weight in merged.items():
        kept = []
        for vector in vectors:
            count = int(density * vector[name].numel())
            places = vector[name].abs().flatten().argsort(descending=True)[:count]
            trimmed = torch.zeros(vector[name].numel())
            trimmed[places] = vector[name].flatten()[places]
            kept.append(trimmed.view_as(vector[name]))
        weighted = torch.stack([share * vector for share, vector in zip(shares, kept, strict=True)])
        sign = torch.where(weighted.sum(0) >= 0, 1.0, -1.0)
        agrees = (weighted.sign() == sign).float()
        divisor = (torch.tensor(shares).view(-1, *[1] * sign.dim()) * agrees).sum(0)
        expected = base[name] + (weighted * agrees).sum(0) / torch.where(divisor == 0, 1.0, divisor)
        assert torch.allclose(weight, expected, atol=1e-5), name


def test_dare_drops_and_rescales_by_the_paper(make: Make, tuned: dict[str, Path]) -> None:
    """Each number of a task vector is 0 or itself / density; a quarter of them survive, drawn anew for each model."""
    base, a, b = weights(tuned["base"]), apart(tuned, "a"), apart(tuned, "b")
    merged = weights(make("a", "b", base="base", method="dare", density=0.25))
    counts = torch.zeros(4)
    for name, weight in merged.items():
        change = weight - base[name]
        choices = (
            torch.stack([torch.zeros_like(change), a[name] / 0.25, b[name] / 0.25, (a[name] + b[name]) / 0.25]) / 2
        )
        distance, which = (choices - change).abs().min(0)
        assert distance.max() < 1e-5, name
        counts += torch.bincount(which.flatten(), minlength=4)
    shares = (counts / counts.sum()).tolist()
    assert shares == pytest.approx([0.75**2, 0.25 * 0.75, 0.75 * 0.25, 0.25**2], abs=0.01)


def test_dare_that_drops_nothing_is_task_arithmetic(make: Make, tuned: dict[str, Path]) -> None:
    base, a, b = weights(tuned["base"]), apart(tuned, "a"), apart(tuned, "b")
    options: dict[str, Any] = {"base": "base", "method": "dare", "density": 1, "normalize": False}
    for name, weight in weights(make("a", "b", weights=[0.4, -0.2], **options)).items():
        assert torch.allclose(weight, base[name] + 0.4 * a[name] - 0.2 * b[name], atol=1e-5), name


def test_dare_is_drawn_by_its_seed_and_the_rest_draw_nothing(make: Make) -> None:
    for params in ({"method": "dare", "base": "base"}, {"method": "ties", "base": "base"}, {}):
        state = torch.random.get_rng_state()
        files = [make("a", "b", again=again, **params) / "model.safetensors" for again in (1, 2)]
        torch.rand(3)
        files.append(make("a", "b", seed=1, **params) / "model.safetensors")
        one, two, other = (file.read_bytes() for file in files)
        assert one == two
        assert (one != other) == (params.get("method") == "dare")
        torch.random.set_rng_state(state)


HASHED = """
import sys
from pathlib import Path
from weighin.adapters.merge import merge
from weighin.harness import Checkpoint
base, one, two = (Checkpoint(Path(path), path) for path in sys.argv[2:])
merge(one, Path(sys.argv[1]), with_=[two], method="dare", base=base)
"""


@pytest.mark.slow
def test_dare_is_the_same_in_another_process(tuned: dict[str, Path], tmp_path: Path, make: Make) -> None:
    """The order of a set of names, which another process has another one of, must not decide who draws first."""
    expected = (make("a", "b", method="dare", base="base") / "model.safetensors").read_bytes()
    for seed in ("1", "2"):
        (tmp_path / seed).mkdir()
        command = [sys.executable, "-c", HASHED, str(tmp_path / seed), *(str(tuned[n]) for n in ("base", "a", "b"))]
        subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": seed}, check=True, capture_output=True)
        assert (tmp_path / seed / "model.safetensors").read_bytes() == expected


def test_the_result_is_a_complete_plain_checkpoint(make: Make, tuned: dict[str, Path]) -> None:
    for out in (make("a", "b"), make("a", "b", method="slerp"), make("a", "b", method="ties", base="base")):
        assert {p.name for p in out.iterdir()} == {p.name for p in tuned["a"].iterdir()}
        assert weights(out).keys() == weights(tuned["a"]).keys()
        for file in ("config.json", "tokenizer.json", "generation_config.json"):
            assert (out / file).read_bytes() == (tuned["a"] / file).read_bytes()
        with torch.no_grad():
            assert torch.equal(AutoModelForCausalLM.from_pretrained(out)(IDS).logits, logits(out))


def test_siblings_tuned_by_lora_merged_and_kept(pico_dir: Path, tmp_path: Path, text_file: Path) -> None:
    """An adapter that is kept beside its base acts as if it had been merged."""
    parent = Checkpoint(pico_dir, "key")
    for name, options in {"one": {"seed": 1}, "two": {"seed": 2}, "kept": {"seed": 2, "merge": False}}.items():
        (tmp_path / name).mkdir()
        lora(parent, tmp_path / name, data=str(text_file), max_length=32, **options)
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for first, other in (("one", "two"), ("one", "kept"), ("kept", "one")):
        out = tmp_path / f"{first}-{other}"
        out.mkdir()
        merge(Checkpoint(tmp_path / first, first), out, with_=[Checkpoint(tmp_path / other, other)])
        assert {p.name for p in out.iterdir()} == {p.name for p in pico_dir.iterdir()}
        for name, weight in weights(out).items():
            assert torch.allclose(weight, (one[name] + two[name]) / 2, atol=1e-5), name


def test_16_bits_stay_and_sums_are_float32(tuned: dict[str, Path], tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        shutil.copytree(tuned[name], tmp_path / name)
        load(tuned[name]).to(torch.bfloat16).save_pretrained(tmp_path / name)
    (tmp_path / "out").mkdir()
    a, b, c = (Checkpoint(tmp_path / name, name) for name in "abc")
    merge(a, tmp_path / "out", with_=[b, c])
    parts = [load_file(each.path / "model.safetensors") for each in (a, b, c)]
    for name, weight in weights(tmp_path / "out").items():
        expected = sum(part[name].float() for part in parts) / 3
        assert torch.equal(weight, torch.as_tensor(expected).to(torch.bfloat16)), name


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "mistral", "cohere", "gpt2"])
def test_other_architectures(pico_dir: Path, tmp_path: Path, kind: str) -> None:
    """With biases where their config has a switch for them: the library's own tables leave those out."""
    tiny(tmp_path / "one", pico_dir, kind)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    doubled = {name: 2 * weight for name, weight in weights(tmp_path / "one").items()}
    save_file(doubled, tmp_path / "two" / "model.safetensors", {"format": "pt"})
    (tmp_path / "out").mkdir()
    merge(Checkpoint(tmp_path / "one", "one"), tmp_path / "out", with_=[Checkpoint(tmp_path / "two", "two")])
    for name, weight in weights(tmp_path / "out").items():
        assert torch.allclose(weight, doubled[name] * 0.75, atol=1e-6), name


def test_what_the_library_cannot_merge_is_refused(pico_dir: Path, tmp_path: Path) -> None:
    """It looks for the head of a GPT-NeoX under a name that the file does not have, and goes on without."""
    tiny(tmp_path / "one", pico_dir, "gpt_neox")
    (tmp_path / "out").mkdir()
    with pytest.raises(
        WeighinError, match=r"mergekit does not know this architecture well .missing_keys: lm_head.weight"
    ):
        merge(Checkpoint(tmp_path / "one", "one"), tmp_path / "out", with_=[Checkpoint(tmp_path / "one", "one")])


def test_weights_that_are_no_numbers_are_refused(tuned: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(tuned["a"], tmp_path / "nan")
    spoilt = {**weights(tuned["a"]), NORM: torch.full((128,), torch.nan)}
    save_file(spoilt, tmp_path / "nan" / "model.safetensors", {"format": "pt"})
    (tmp_path / "out").mkdir()
    with pytest.raises(WeighinError, match=f"not finite, in {NORM}"):
        merge(Checkpoint(tuned["a"], "a"), tmp_path / "out", with_=[Checkpoint(tmp_path / "nan", "nan")])


OURS = Outline({"model_type": "llama", "hidden_size": 64, "vocab_size": 9}, vocabulary="v")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"method": "ties"}, "merge.base: ties merges what .* needs that ancestor"),
        ({"method": "dare"}, "merge.base: dare"),
        ({"base": OURS}, "merge.base: linear does not read it. Leave it out, or use ties or dare"),
        ({"t": 0.5}, "merge.t: linear does not read it"),
        ({"density": 0.5}, "merge.density: linear does not read it"),
        ({"method": "slerp", "weights": [1, 1]}, "merge.weights: slerp does not read it"),
        ({"method": "slerp", "with": [OURS, OURS]}, "from one model to one other .got 2 others"),
        ({"weights": [1, 2, 3]}, "one for the parent and one for each of with, 2 .got 3"),
        ({"weights": [1, -1]}, "whose sum is not 0"),
        ({"weights": [0, 0], "normalize": False}, "whose sum is not 0"),
        ({"with": [OURS.but(vocabulary="w")]}, r"merge.with\[0\]: it has another vocabulary"),
        ({"with": [OURS.but(packed="gptq")]}, r"merge.with\[0\]: merging needs dense weights .*gptq"),
        ({"with": [OURS, OURS.but(structure="shared")]}, r"merge.with\[1\]: merging needs dense weights .*shared"),
        ({"with": [OURS.but(attached="prompt_tuning")]}, "a soft prompt"),
        ({"with": [OURS.but(config={"hidden_size": 32})]}, r"merge.with\[0\]: hidden_size is 32, the parent's 64"),
        ({"method": "ties", "base": OURS.but(config={"model_type": "gpt2"})}, "merge.base: model_type is gpt2"),
    ],
)
def test_what_cannot_be_merged_is_refused_at_plan(params: dict[str, Any], message: str) -> None:
    assert merge.foresee is not None
    defaults = {**merge.parameters(**{"with": ["x"]}).model_dump(), "with": [OURS]}
    with pytest.raises(WeighinError, match=message):
        merge.foresee(OURS, {**defaults, **params})


@pytest.mark.parametrize("parent", [OURS.but(packed="gptq"), OURS.but(structure="factors"), OURS.but(served="decode")])
def test_a_parent_that_cannot_be_merged_is_refused_at_plan(parent: Outline) -> None:
    assert merge.foresee is not None
    with pytest.raises(WeighinError, match=r"Put merge (first|before)"):
        merge.foresee(parent, {**merge.parameters(**{"with": ["x"]}).model_dump(), "with": [OURS]})


def test_models_not_known_yet_are_not_refused() -> None:
    assert merge.foresee is not None
    params = {**merge.parameters(**{"with": ["x"]}).model_dump(), "with": [Outline()]}
    assert merge.foresee(OURS.but(attached="lora"), params) == OURS
    assert merge.references == ("with", "base")
