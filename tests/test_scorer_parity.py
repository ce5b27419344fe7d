"""What lm-eval's own Hugging Face model says, ours says: log-likelihoods, greedy flags, windows, texts."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from tests.conftest import TEXT
from tests.shapes import tiny
from weighin.harness import Checkpoint
from weighin.harness.model import Loading, TransformersModel
from weighin.harness.reference import reference_path
from weighin.harness.scorer import scoring_of
from weighin.suites._hflm import language_model

NAMES = ["reference", "stories260K", "gpt2", "qwen2", "mistral"]
SHOTS = "".join(
    f"Question: {q}\nAnswer: {a}\n\n" for q, a in zip(TEXT, ["red", "blue", "green", "white", "seven"], strict=True)
)
CHOICES = [
    " red",
    " A",
    " the quiet boat that nobody painted, and then the river rose and rose again",
    " d’été 中文 🚲",
]
CONTEXTS = {
    "0-shot": [f"Question: {text}\nAnswer:" for text in TEXT],
    "5-shot": [f"{SHOTS}Question: {text}\nAnswer:" for text in TEXT],
    "longer than the window": [SHOTS + text for text in TEXT],
    "empty": [""],
    "spaces at the end": ["The old lantern  ", "Naïve café — ½ 🚲 \n"],
}


@pytest.fixture(scope="module")
def models(
    pico_dir: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Callable[[str], TransformersModel]:
    """Trained and random models of several architectures; `mistral` slides a window shorter than a question."""
    made: dict[str, TransformersModel] = {}

    def path(name: str) -> Path:
        if name == "reference":
            return reference_path("base")
        if name == "stories260K":
            return Path(request.getfixturevalue("shared_data")) / "models" / name
        sizes: dict[str, Any] = {
            "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256},
            "mistral": {"sliding_window": 16},
        }
        tiny(tmp_path_factory.mktemp(name), pico_dir, name, **sizes.get(name, {}))
        return tmp_path_factory.getbasetemp() / f"{name}0"

    def model(name: str) -> TransformersModel:
        if name not in made:
            made[name] = TransformersModel(Checkpoint(path(name), name), {}, Loading("float32"))
            assert scoring_of(made[name]).mode == "exact", scoring_of(made[name]).reason
        return made[name]

    return model


def both(model: TransformersModel, max_length: int | None = None, bos: bool | None = None) -> tuple[Any, HFLM]:
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    theirs = HFLM(
        pretrained=model.module, tokenizer=model.tokenizer, batch_size=4, max_length=max_length, add_bos_token=bos,
        device="cpu",
    )  # fmt: skip
    return language_model(model, 4, max_length, bos), theirs


def asked(kind: str, pairs: list[tuple[Any, ...]]) -> list[Instance]:
    return [Instance(kind, {}, pair, number) for number, pair in enumerate(pairs)]


@pytest.mark.parametrize("bos", [None, True, False])
@pytest.mark.parametrize("case", CONTEXTS)
@pytest.mark.parametrize("name", NAMES)
def test_log_likelihoods(name: str, case: str, bos: bool | None, models: Callable[[str], TransformersModel]) -> None:
    ours, theirs = both(models(name), 64 if case == "longer than the window" else None, bos)
    pairs = [(context, choice) for context in CONTEXTS[case] for choice in CHOICES]
    requests = asked("loglikelihood", pairs)
    found, wanted = ours.loglikelihood(requests), theirs.loglikelihood(requests)
    assert [value for value, _ in found] == pytest.approx([value for value, _ in wanted], abs=1e-4)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in wanted]


@pytest.mark.parametrize("max_length", [16, 40, None])
@pytest.mark.parametrize("name", NAMES)
def test_rolling_windows(name: str, max_length: int | None, models: Callable[[str], TransformersModel]) -> None:
    ours, theirs = both(models(name), max_length)
    requests = asked("loglikelihood_rolling", [(text,) for text in [*TEXT, SHOTS, "a", "中文 🚲"]])
    wanted = theirs.loglikelihood_rolling(requests)
    assert ours.loglikelihood_rolling(requests) == pytest.approx(wanted, rel=1e-5, abs=1e-4)
    assert ours.batch_size == theirs.batch_size == 4  # what the answers in text are made with


@pytest.mark.parametrize("name", NAMES)
def test_answers_in_text(name: str, models: Callable[[str], TransformersModel]) -> None:
    ours, theirs = both(models(name))
    limits: dict[str, Any] = {"until": ["\n", "e t"], "max_gen_toks": 12, "do_sample": False}
    requests = asked("generate_until", [(text[:15], limits) for text in TEXT])
    assert ours.generate_until(requests) == theirs.generate_until(requests)


@pytest.mark.parametrize("name", NAMES)
def test_answers_after_examples_that_are_read_once(name: str, models: Callable[[str], TransformersModel]) -> None:
    model = models(name)
    ours, theirs = both(model)
    limits: dict[str, Any] = {"until": ["\n", "e t"], "max_gen_toks": 8, "do_sample": False}
    texts = [f"{SHOTS}{text[: 9 + 7 * place]}" for place, text in enumerate([*TEXT, *TEXT[:2]])]
    requests = asked("generate_until", [(text, limits) for text in texts])
    read: list[int] = []
    hook = model.module.base_model.register_forward_pre_hook(
        lambda _, args, given: read.append((args[0] if args else given["input_ids"]).numel()), with_kwargs=True
    )
    found, mine = ours.generate_until(requests), sum(read)
    read.clear()
    wanted, whole = theirs.generate_until(requests), sum(read)
    hook.remove()
    assert found == wanted and len(set(found)) > 1
    shared = len(ours.tok_encode(SHOTS)) - 8  # tokens may join at its end
    if name == "mistral":
        assert mine == whole, "a window would count the padding"
    else:
        assert mine <= whole - (len(texts) - 1) * shared
    wide = asked("generate_until", [(f"{SHOTS}{text}", {**limits, "max_gen_toks": 200}) for text in TEXT])
    ours.batch_size_per_gpu = 1
    assert ours.generate_until(wide) == theirs.generate_until(wide), "cut at the left, or alone in its batch"


def test_a_continuation_that_outgrows_the_window_is_refused_as_there(
    models: Callable[[str], TransformersModel],
) -> None:
    ours, theirs = both(models("gpt2"), 4)
    requests = asked("loglikelihood", [("The old", CHOICES[2])])
    with pytest.raises(AssertionError):
        theirs.loglikelihood(requests)
    with pytest.raises(ValueError, match="4 fit"):
        ours.loglikelihood(requests)
