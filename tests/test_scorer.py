"""Scores by the tree: what whole texts give, the same bits in any company, and the plain path where it must be."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.shapes import tiny
from weighin.harness import Checkpoint, registry, tree_attention
from weighin.harness.model import Loading, TransformersModel
from weighin.harness.prefix_tree import Request, build
from weighin.harness.scorer import Scored, Scoring, predictions, score, scoring_of
from weighin.harness.tree_scorer import TreeScorer, by_request

KINDS: dict[str, dict[str, Any]] = {
    "llama": {},
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256},
    "qwen2": {},
    "mistral": {"sliding_window": 20},
    "granite": {"logits_scaling": 3.0},
}


def loaded(path: Path, **loading: Any) -> TransformersModel:
    return TransformersModel(Checkpoint(path, path.name), {}, Loading("float32", **loading))


@pytest.fixture(scope="module")
def models(pico_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], TransformersModel]:
    """A model of each architecture, made once."""
    made: dict[str, TransformersModel] = {}

    def model(kind: str) -> TransformersModel:
        if kind not in made:
            out = tmp_path_factory.mktemp(kind)
            tiny(out, pico_dir, kind, **KINDS[kind])
            made[kind] = loaded(out)
        return made[kind]

    return model


def questions(seed: int = 0, size: int = 300) -> list[Request]:
    """Choices behind contexts behind one header of examples, from a single token to long ones; and a bare text."""
    draw = random.Random(seed)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(draw.randrange(size) for _ in range(count))

    header, asked = tokens(40), [Request(tokens(90), 89)]
    for _ in range(5):
        context = header + tokens(draw.randint(1, 70))
        for count in (1, 1, draw.randint(2, 5), draw.randint(20, 40)):
            asked.append(Request(context + tokens(count), count))
    return asked


def plainly(model: TransformersModel, asked: list[Request]) -> list[Scored]:
    """The same by whole texts, one at a time: nothing that is tried here has part in it."""
    found = []
    for ids, own in asked:
        said = model.logprobs([list(ids[:-1])])[0, -own:]
        targets = torch.tensor(ids[-own:])
        each = said.gather(1, targets[:, None])[:, 0].tolist()
        found.append(Scored(tuple(each), tuple((said.argmax(-1) == targets).tolist())))
    return found


def assert_like_whole_texts(model: TransformersModel, asked: list[Request]) -> None:
    for ours, theirs, (_, own) in zip(score(model, asked), plainly(model, asked), asked, strict=True):
        assert len(ours.logprobs) == own
        assert ours.logprobs == pytest.approx(theirs.logprobs, abs=1e-4)
        assert ours.greedy == theirs.greedy


@pytest.mark.parametrize("kind", KINDS)
def test_every_architecture_gives_what_whole_texts_give(kind: str, models: Callable[[str], TransformersModel]) -> None:
    model = models(kind)
    assert scoring_of(model).mode == "exact", scoring_of(model).reason
    assert_like_whole_texts(model, questions())


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mistral"])
@pytest.mark.parametrize("together", [1, 2, 7, 64])
def test_the_bits_are_the_same_in_any_company(
    kind: str, together: int, models: Callable[[str], TransformersModel]
) -> None:
    model = models(kind)
    asked = questions() + questions(1)
    tree = scoring_of(model).tree
    assert tree is not None
    whole = by_request(tree, asked)
    order = random.Random(together).sample(range(len(asked)), len(asked))
    for start in range(0, len(order), together):
        part = order[start : start + together]
        for place, found in zip(part, by_request(tree, [asked[i] for i in part]), strict=True):
            assert torch.equal(found, whole[place])


def test_half_the_bits_are_the_same_too(half_dir: Path) -> None:
    model = TransformersModel(Checkpoint(half_dir, "half"))
    assert model.module.dtype == torch.bfloat16 and scoring_of(model).mode == "exact"
    asked = questions()
    whole = score(model, asked)
    assert [score(model, [one])[0] for one in asked[-6:]] == whole[-6:]


def test_scores_that_begin_inside_a_shared_beginning_lose_no_token(pico_dir: Path) -> None:
    """A peer's prefix cache gave predictions for new tokens only, and nobody counted them (Model-Optimizer 1577)."""
    text = tuple(range(3, 93))
    asked = [Request(text[:end], end - 1) for end in (2, 30, 64, 65, 90)]  # each wholly within the next
    asked += [Request((*text[:50], 7, 8, 9), 40), Request(text[:50], 49), Request(text[:50], 1)]
    assert_like_whole_texts(loaded(pico_dir), asked)


def test_the_tree_is_all_that_is_computed(pico_dir: Path) -> None:
    model = loaded(pico_dir)
    header = tuple(range(3, 103))
    asked = [Request((*header, q, q - 60, choice, choice), 2) for q in range(120, 240) for choice in range(4)]
    tree = build(asked)
    scorer = TreeScorer(model.module, quiet=True)
    list(scorer.blocks(tree))
    assert tree.nodes <= scorer.computed <= 1.1 * tree.nodes < 0.1 * sum(len(ids) - 1 for ids, _ in asked)


def test_the_head_is_applied_only_where_a_score_is_asked_for(pico_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded(pico_dir)
    scorer = TreeScorer(model.module, quiet=True)
    rows = []
    scorer.head.register_forward_pre_hook(lambda _, given: rows.append(len(given[0])))
    list(scorer.blocks(build([Request((*range(3, 203), choice), 1) for choice in range(4)])))
    assert rows == [64]  # one prediction, filled up


def test_attention_is_given_back(pico_dir: Path) -> None:
    model = loaded(pico_dir)
    before, text = model.module.config._attn_implementation, [list(range(5, 40))]
    said = model.logprobs(text)
    score(model, questions())
    assert model.module.config._attn_implementation == before and torch.equal(model.logprobs(text), said)


@pytest.mark.parametrize("kind", ["gemma2", "mamba"])
def test_an_architecture_that_cannot_is_scored_plainly_and_says_so(
    kind: str, pico_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tiny(tmp_path, pico_dir, kind)
    model = loaded(tmp_path)
    scoring = scoring_of(model)
    assert scoring.mode == "plain" and scoring.reason in caplog.text and scoring.reason
    assert_like_whole_texts(model, questions())


def test_attention_that_sees_another_text_is_found_out(pico_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = tree_attention._chunks
    monkeypatch.setattr(
        tree_attention, "_chunks", lambda walk, group, rows, store, how: honest(
            walk, group, rows, (store[0], store[1].roll(1, 0)), how
        )
    )  # fmt: skip
    model = loaded(pico_dir)
    assert scoring_of(model).mode == "plain" and "nat a token" in scoring_of(model).reason
    assert_like_whole_texts(model, questions())


def test_arithmetic_that_depends_on_the_company_is_told(pico_dir: Path) -> None:
    """A layer as accelerators have them: another sum order for other numbers of rows, nowhere the same."""
    model = loaded(pico_dir)
    layer = model.module.model.layers[0].mlp.down_proj
    plain = layer.forward
    calls = []

    def moved(x: torch.Tensor) -> torch.Tensor:
        calls.append(len(calls))
        return plain(x) * (1 + 1e-6 * len(calls))

    layer.forward = moved
    scoring = scoring_of(model)
    assert scoring.mode == "fast" and "what else is computed" in scoring.reason


def test_rows_that_matter_by_their_number_are_filled_up(pico_dir: Path) -> None:
    model = loaded(pico_dir)
    layer = model.module.model.layers[0].mlp.down_proj
    plain = layer.forward
    layer.forward = lambda x: plain(x) * (1 + 1e-6 * x.shape[1])
    tree = scoring_of(model).tree
    assert scoring_of(model).mode == "exact" and tree is not None and tree.shapes.rung == tree.shapes.tokens
    asked = questions()
    whole = score(model, asked)
    assert [score(model, [one])[0] for one in asked[:6]] == whole[:6]


def test_a_soft_prompt_and_a_model_of_one_s_own_are_scored_plainly(pico_dir: Path) -> None:
    model = loaded(pico_dir)
    model.module.soft_prompt = torch.nn.Parameter(torch.zeros(2, 128))
    assert scoring_of(model).mode == "plain"

    class Wrapped:
        def __getattr__(self, name: str) -> Any:
            return getattr(model, name)

    model.scoring = Scoring("exact", TreeScorer.__new__(TreeScorer))
    assert scoring_of(Wrapped()).mode == "plain"  # it may say something else than its module does


@pytest.mark.parametrize("mode", ["exact", "fast", "plain"])
def test_what_is_asked_for_is_what_is_done(mode: str, pico_dir: Path) -> None:
    model = loaded(pico_dir, scorer=mode)
    assert scoring_of(model).mode == mode and (scoring_of(model).tree is None) == (mode == "plain")
    assert_like_whole_texts(model, questions())


@pytest.mark.parametrize(
    ("stage", "params"),
    [("int8", {}), ("lora", {"merge": False, "epochs": 1}), ("rtn", {})],
)
def test_variants_are_scored_by_the_tree(
    stage: str, params: dict[str, Any], make: Callable[..., Path], pico_dir: Path
) -> None:
    plugin = registry.stage(stage)
    if registry.missing(plugin.needs):
        pytest.skip(f"{stage} needs {', '.join(registry.missing(plugin.needs))}")
    model = loaded(make(plugin, pico_dir, **params))
    assert scoring_of(model).mode == "exact", scoring_of(model).reason
    asked = questions()
    ours, theirs = score(model, asked), plainly(model, asked)
    for one, other in zip(ours, theirs, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-3)
    assert [score(model, [one])[0] for one in asked[-4:]] == ours[-4:]


def test_two_models_are_read_side_by_side(pico_dir: Path, models: Callable[[str], TransformersModel]) -> None:
    one, other = loaded(pico_dir), models("llama")
    asked = questions()
    tree = build(asked)
    plain = [loaded(pico_dir, scorer="plain"), other]
    found: list[torch.Tensor] = []
    for pair in ([one, other], plain):
        table = torch.zeros(2, len(tree.wanted), 3)
        for which, rows, said in predictions(pair, tree):
            for number, each in enumerate(said):
                table[number, torch.from_numpy(which)] = each[rows][:, :3]
        found.append(table)
    assert found[0].min() < -1 and torch.allclose(found[0], found[1], atol=1e-4)
