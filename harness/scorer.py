"""How likely a model finds tokens: for every suite, by one pass over the tree of all that is asked.

`exact`, the default, computes every common beginning once and gives a text the same bits in any company and order;
`fast` leaves out what only that costs; `plain` reads every text by itself, in padded batches. A model that implements
`logprobs` alone is read plainly, and so is one whose architecture does not take attention by tree: ten items are
compared with the plain path before the first is believed.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import numpy as np

from weighin.harness.model import TransformersModel
from weighin.harness.packing import Shapes
from weighin.harness.plugin import Model
from weighin.harness.prefix_tree import Ints, Request, Tree, build
from weighin.harness.tree_attention import UnknownAttention
from weighin.harness.tree_scorer import Block, TreeScorer, by_request, steady

log = logging.getLogger(__name__)

Mode = Literal["exact", "fast", "plain"]
EXACT, FAST = Shapes(), Shapes(rung=1)
FLOATS = 2**26
"""Log-probabilities that one plain pass may return: 256 MiB."""
TOLERANCE = {"float32": 1e-3}
"""How far, nats a token in the mean, both paths may be apart at loading; rounding of 16-bit weights allows `HALF`."""
HALF = 0.1


class Scored(NamedTuple):
    """Of each scored token of a request: its log-probability, nats, and whether it is the likeliest there."""

    logprobs: tuple[float, ...]
    greedy: tuple[bool, ...]

    @property
    def total(self) -> float:
        """Of all of them together, nats."""
        return sum(self.logprobs)


class Scoring(NamedTuple):
    """How a model is scored, and why not as it was asked for."""

    mode: Mode
    tree: TreeScorer | None
    reason: str = ""


class PlainScorer:
    """Predictions by `Model.logprobs`: whole texts in padded batches, the longest first."""

    def __init__(self, model: Model, batch_size: int = 16) -> None:
        self.model, self.batch_size = model, batch_size

    def blocks(self, tree: Tree) -> Iterator[Block]:
        """Predictions at every node that is wanted, once each; a text that begins another is read with that one."""
        import torch
        from tqdm import tqdm

        lengths = np.array([len(path) for path in tree.places])
        shared = np.append(tree.depths[tree.starts[1:]], 0)
        rows = sorted(np.flatnonzero(shared < lengths).tolist(), key=lambda i: (-lengths[i], i))
        open_ = np.zeros(tree.nodes, bool)
        open_[tree.wanted] = True
        size, start = len(self.model.tokenizer), 0
        with tqdm(total=len(rows), desc="log-likelihoods") as bar:
            while start < len(rows):
                count = max(1, min(self.batch_size, FLOATS // (int(lengths[rows[start]]) * size)))
                batch = [tree.places[i] for i in rows[start : start + count]]
                said = self.model.logprobs([tree.tokens[path].tolist() for path in batch])
                nodes, found = [], []
                for place, path in enumerate(batch):
                    depths = np.flatnonzero(open_[path])
                    open_[path] = False
                    nodes.append(path[depths])
                    found.append(said[place, torch.from_numpy(depths).to(said.device)])
                yield Block(np.concatenate(nodes), torch.cat(found))
                start += count
                bar.update(len(batch))


def scoring_of(model: Model) -> Scoring:
    """How a model is scored: tried out at the first call and kept."""
    if not isinstance(model, TransformersModel):
        return Scoring("plain", None)
    if model.scoring is None:
        model.scoring = _tried(model)
        if model.scoring.reason:
            log.warning("scored by the %s path: %s", model.scoring.mode, model.scoring.reason)
    found: Scoring = model.scoring
    return found


class Predicted(NamedTuple):
    """Some scored tokens of a tree: their places in `Tree.wanted`, the rows that predict them, and those rows by model.

    Each of `logprobs` is float32 (rows, vocabulary), nats.
    """

    which: Ints
    rows: Any
    logprobs: tuple[Any, ...]


def predictions(models: Sequence[Model], tree: Tree, batch_size: int = 16) -> Iterator[Predicted]:
    """What each of some models with one vocabulary predicts, side by side, each reading the tree once."""
    import torch

    trees = [scoring_of(model).tree for model in models]
    streams: list[Iterator[Block]]
    if all(trees):
        most = min(each.most for each in trees if each)
        abreast = min(each.abreast(tree) for each in trees if each)
        streams = [each.blocks(tree, most, abreast) for each in trees if each]
    else:
        streams = [PlainScorer(model, batch_size).blocks(tree) for model in models]
    order = np.argsort(tree.wanted, kind="stable")
    for blocks in zip(*streams, strict=True):
        nodes = blocks[0].nodes
        low, high = (np.searchsorted(tree.wanted, nodes, side, order) for side in ("left", "right"))
        which = order[np.concatenate([np.arange(a, b) for a, b in zip(low, high, strict=True)])]
        rows = torch.from_numpy(np.repeat(np.arange(len(nodes)), high - low))
        yield Predicted(which, rows.to(blocks[0].logprobs.device), tuple(block.logprobs for block in blocks))


def score(model: Model, requests: Sequence[Request], batch_size: int = 16) -> list[Scored]:
    """Score requests in their order, all in one pass."""
    import torch

    tree = build(requests)
    likely, best = np.zeros(len(tree.wanted)), np.zeros(len(tree.wanted), bool)
    for which, rows, (said,) in predictions([model], tree, batch_size):
        targets = torch.from_numpy(tree.targets[which]).to(said.device)
        likely[which] = said[rows, targets].double().cpu().numpy()
        best[which] = (said.argmax(-1)[rows] == targets).cpu().numpy()
    return [
        Scored(tuple(each.tolist()), tuple(greedy.tolist()))
        for each, greedy in zip(tree.split(likely), tree.split(best), strict=True)
    ]


def tolerance(model: Model) -> float:
    """How far two ways of scoring may be apart by rounding alone, nats a token in the mean."""
    return TOLERANCE.get(str(model.module.dtype).removeprefix("torch."), HALF)


@contextmanager
def exactly(model: Model) -> Iterator[bool]:
    """Within the block, a model that is scored by `fast` is scored by `exact`; says whether this machine can."""
    assert isinstance(model, TransformersModel)
    kept = scoring_of(model)
    tree = steady(model.module, _probe(model), EXACT)
    model.scoring = Scoring("exact", tree) if tree else kept
    try:
        yield tree is not None
    finally:
        model.scoring = kept


def _tried(model: TransformersModel) -> Scoring:
    """What was asked for where it gives what the plain path gives; else the plain path, and why."""
    asked = model.loading.scorer
    if asked == "plain":
        return Scoring("plain", None)
    if model.runtime:
        return Scoring("plain", None, f"{model.runtime.name} reads whole texts only")
    items = _probe(model)
    said = model.logprobs([list(ids[:-1]) for ids, _ in items])  # first: a packed model may unpack at a whole forward
    try:
        tree = steady(model.module, items, EXACT) if asked == "exact" else TreeScorer(model.module, FAST)
        reason = "" if tree else "its numbers change with what else is computed, on this machine"
        tree = tree or TreeScorer(model.module, EXACT)
        apart = _apart(said, tree, items)
    except (UnknownAttention, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        return Scoring("plain", None, f"{type(error).__name__}: {str(error).splitlines()[0]}")
    allowed = tolerance(model)
    if not apart <= allowed:
        return Scoring("plain", None, f"attention by tree is {apart:.2g} nat a token from it (allowed: {allowed:g})")
    return Scoring("fast" if reason else asked, tree, reason)


def _probe(model: TransformersModel) -> list[Request]:
    """Ten items that branch at several depths and pass the edge of a chunk, and of a sliding window that is short."""
    import random

    draw = random.Random(0)
    most = min(int(model.module.get_input_embeddings().weight.shape[0]), len(model.tokenizer))

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(draw.randrange(most) for _ in range(count))

    room = model.window
    window = getattr(model.module.config, "sliding_window", None) or 0
    head = tokens(max(1, min(window + 4 if 0 < window <= 256 else 12, room // 2)))
    left = max(1, min(12, (room - len(head)) // 2))
    inner = [head + tokens(left) for _ in range(3)]
    items = [inner[i % 3] + tokens(max(2, min(12, room - len(head) - left))) for i in range(9)]
    return [Request(ids, min(8, len(ids) - 1)) for ids in [*items, head + tokens(2)]]


def _apart(said: Any, tree: TreeScorer, items: Sequence[Request]) -> float:
    """Mean distance of scored tokens' log-probabilities by the tree from those of whole texts, `said`, nats."""
    import torch

    quiet, tree.quiet = tree.quiet, True
    found = by_request(tree, items)
    tree.quiet = quiet
    gaps = []
    for place, ((ids, own), rows) in enumerate(zip(items, found, strict=True)):
        whole = said[place, len(ids) - 1 - own : len(ids) - 1]
        targets = torch.tensor(ids[len(ids) - own :], device=said.device).view(-1, 1)
        gaps.append((whole.gather(1, targets) - rows.gather(1, targets)).abs())
    return float(torch.cat(gaps).mean())
