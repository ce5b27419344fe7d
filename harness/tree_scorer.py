"""Scores by a transformers model that reads every distinct beginning of its texts once.

A pack of the prefix tree is one forward pass without padding between texts; the head is applied only where a score is
asked for. The log-softmax is taken in float32.

What a token's numbers are must not depend on what else is asked. Its attention has a shape and a place that are its
depth's alone (`packing`). All other operations treat the rows of a pack one by one; their matrix products give a row
the same bits wherever it stands and however many there are, as long as it is not just a few: that is a property of a
machine's libraries, so it is tried out (`steady`). Where the number of rows matters, as on accelerators, every pack is
filled up to the same size. A pack has the same share of torch's threads whether or not others are computed meanwhile.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np

from weighin.harness.crew import crew, width
from weighin.harness.kv_budget import sharers, within
from weighin.harness.lanes import LEAST, Lane, lanes
from weighin.harness.packing import Pack, Shapes, packs
from weighin.harness.prefix_tree import Ints, Request, Tree, build
from weighin.harness.tree_attention import UnknownAttention, Walk, attending

LOGITS = 2**19
"""Logits that are computed at once, at most: 2 MiB in float32. More would be memory new to the process each time."""


class Block(NamedTuple):
    """Predictions at some nodes of a tree: log-probabilities, nats, float32 (nodes, vocabulary)."""

    nodes: Ints
    logprobs: Any


@dataclass
class TreeScorer:
    """Predictions of one model by packs of a tree. `computed` counts the tokens that went through it, filling included.

    `lanes` threads read a tree, each with a share of torch's threads: as many as `width` says, unless told otherwise.
    UnknownAttention where its architecture asks for what attention by tree does not do.
    """

    module: Any
    shapes: Shapes = field(default_factory=Shapes)
    computed: int = 0
    quiet: bool = False
    lanes: int = 0

    def __post_init__(self) -> None:
        self.lanes = self.lanes or width(self.module.device)
        self.head = self.module.get_output_embeddings()
        if self.head is None or not hasattr(self.module, "base_model") or hasattr(self.module, "soft_prompt"):
            raise UnknownAttention("it has no head of its own, or reads a soft prompt before every text")
        if _moving_positions(self.module.config):
            raise UnknownAttention("its position encoding depends on the longest text of a batch")

    def blocks(self, tree: Tree, most: int = 0, abreast: int = 0) -> Iterator[Block]:
        """Predictions at every node that is wanted, once each, `most` at a time; `abreast` lanes of a tree in turns.

        Where one of them is 0 the scorer chooses.
        """
        from tqdm import tqdm

        parts, most = lanes(tree, abreast or self.abreast(tree)), most or self.most
        shapes = within(self.module, tree.longest, self.shapes, len(parts))
        trunk = tree.trunk if len(parts) > 1 and tree.trunk >= LEAST else 0
        total = trunk + sum(lane.tree.nodes - trunk for lane in parts)
        stem, *walks = (Walk(shapes.chunk, self.module.device) for _ in range(1 + len(parts)))
        with tqdm(total=total, desc="log-likelihoods", disable=self.quiet) as bar, crew(self.lanes) as in_turns:
            for block, read in in_turns([self._walked(stem, Lane(tree, 0, 0), most, packs(tree, shapes, 0, trunk))]):
                bar.update(read)
                yield block
            for walk in walks:
                walk.kept |= stem.kept
            ahead = [packs(lane.tree, shapes, trunk) for lane in parts]
            for block, read in in_turns(map(self._walked, walks, parts, repeat(most), ahead)):
                bar.update(read)
                yield block
        self.computed += sum(walk.computed for walk in (stem, *walks))

    def abreast(self, tree: Tree) -> int:
        """Lanes of a tree that may be read at a time: the budget for keys and values is for all of them."""
        return min(self.lanes, sharers(self.module, tree.longest, self.shapes))

    def _walked(self, walk: Walk, lane: Lane, most: int, ahead: Iterable[Pack]) -> Iterator[tuple[Block, int]]:
        """Predictions at what is wanted in some packs of a lane, and how many nodes were read since the last ones."""
        wanted = np.unique(lane.tree.wanted)
        nodes: Ints = np.zeros(0, np.int64)
        states: list[Any] = []
        read = 0
        for pack in ahead:
            low, high = np.searchsorted(wanted, (pack.first, pack.first + pack.count))
            here = wanted[low:high]
            states.append(self._states(walk, pack, here - pack.first))
            nodes, read = np.concatenate([nodes, here]), read + pack.count
            while len(nodes) >= most:
                states = [_joined(states)]
                yield Block(nodes[:most] + lane.shift, self._predictions(states[0][:most])), read
                nodes, states, read = nodes[most:], [states[0][most:]], 0
        if len(nodes):
            yield Block(nodes + lane.shift, self._predictions(_joined(states))), read

    @property
    def most(self) -> int:
        """Rows of the head's product: as many as memory allows, a multiple of the rung."""
        vocabulary, rung = int(self.module.config.get_text_config().vocab_size), max(self.shapes.rung, 64)
        return min(max(LOGITS // vocabulary // rung, 1) * rung, max(self.shapes.tokens, rung))

    def _states(self, walk: Walk, pack: Pack, rows: Ints) -> Any:
        """Last hidden states (rows, hidden) of a pack's forward pass at some of its rows."""
        import torch

        walk.enter(pack)
        assert walk.pack is not None
        with torch.inference_mode(), attending(self.module, walk):
            out = self.module.base_model(
                input_ids=walk.pack.tokens, position_ids=walk.pack.depths, use_cache=False, return_dict=True
            )
            if not walk.calls:
                raise UnknownAttention("its attention cannot be replaced")
            return out.last_hidden_state[0].index_select(0, torch.from_numpy(rows).to(walk.device))

    def _predictions(self, states: Any) -> Any:
        """Log-probabilities (rows, vocabulary), float32, by a product that is filled up to a multiple of the rung."""
        import torch

        count, rung = len(states), self.shapes.rung
        if short := -count % rung:
            states = torch.cat([states, states[-1:].expand(short, -1)])
        with torch.inference_mode():
            logits = _finished(self.head(states), self.module.config)
            return torch.log_softmax(logits.float(), dim=-1)[:count]


def _finished(logits: Any, config: Any) -> Any:
    """What some architectures do to logits behind the head: Gemma 2 caps them, Granite and Cohere scale them."""
    if (cap := getattr(config, "final_logit_softcapping", None)) is not None:
        return (logits / cap).tanh() * cap
    if (scaling := getattr(config, "logits_scaling", None)) is not None:
        return logits / scaling
    if (scale := getattr(config, "logit_scale", None)) is not None:
        return logits * scale
    return logits


def _moving_positions(config: Any) -> bool:
    kinds = getattr(config, "rope_parameters", None) or {}
    each = [kinds, *(part for part in kinds.values() if isinstance(part, dict))]
    return any(part.get("rope_type") in ("dynamic", "longrope") for part in each)


def _joined(states: list[Any]) -> Any:
    import torch

    return torch.cat(states) if len(states) > 1 else states[0]


def steady(module: Any, items: Sequence[Request], shapes: Shapes = Shapes()) -> TreeScorer | None:  # noqa: B008  (immutable)
    """A scorer that gives each item the same bits alone and in company; None where this machine's libraries do not.

    Tried first with packs that are as long as they must be, then with packs that are all of one size.
    """
    for tried in (shapes, shapes._replace(rung=shapes.tokens)):
        scorer = TreeScorer(module, tried, quiet=True)
        together = by_request(scorer, items)
        alone = [by_request(scorer, [item])[0] for item in items[-2:]]
        if all(a.equal(b) for a, b in zip(alone, together[-2:], strict=True)):
            scorer.quiet = False
            return scorer
    return None


def by_request(scorer: TreeScorer, items: Sequence[Request]) -> list[Any]:
    """Predictions of each item's scored tokens (own, vocabulary)."""
    import torch

    tree = build(items)
    found = list(scorer.blocks(tree))
    nodes = np.concatenate([block.nodes for block in found])
    rows = torch.cat([block.logprobs for block in found])
    return [rows[torch.from_numpy(np.searchsorted(nodes, own))] for own in tree.split(tree.wanted)]
