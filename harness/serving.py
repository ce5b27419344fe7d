"""How a variant is served: `serving.json` beside its weights, and generation that follows it.

Assisted generation (a draft model, prompt lookup, early exit) is transformers'; its blocks are counted here. What is
sampled is drawn from a seed and the prompt alone, one prompt at a time, so that no batch changes an answer.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from weighin.harness.outline import SERVING
from weighin.harness.structure import pretrained

DRAFT = "draft"
"""The folder in a checkpoint that holds its draft model."""


@dataclass(frozen=True)
class Serving:
    """What `serving.json` says; an empty one is plain greedy decoding."""

    options: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of `generate`."""
    block: int = 0
    """Tokens drafted before the model checks them; 0 where nothing drafts."""
    draft: bool = False
    """Whether a draft model lies in the folder `draft`."""
    before: str = ""
    after: str = ""
    """What stands before and behind each prompt."""
    votes: int = 1
    """Completions that are drawn a prompt; the commonest answer is given."""
    answer: str = ""
    """Regular expression whose last match is a completion's answer; empty: all of it."""
    seed: int = 0

    @property
    def assisted(self) -> bool:
        """Whether tokens are drafted and then checked."""
        return self.block > 0

    def shown(self) -> dict[str, Any]:
        """What differs from plain greedy decoding, as JSON."""
        plain = asdict(Serving())
        return {name: value for name, value in asdict(self).items() if value != plain[name]}


@dataclass(frozen=True)
class Block:
    """One pass of the model over drafted tokens: how many there were, and how many of them it would have chosen."""

    drafted: int
    accepted: int


def read(folder: Path) -> Serving:
    """How the checkpoint in `folder` is served."""
    path = folder / SERVING
    return Serving(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else Serving()


def write(folder: Path, serving: Serving) -> None:
    """Write `serving.json`."""
    text = json.dumps(serving.shown(), indent=1, sort_keys=True)
    (folder / SERVING).write_text(text + "\n", encoding="utf-8")


def prepare(module: Any, folder: Path, serving: Serving, **loading: Any) -> tuple[dict[str, Any], Any]:
    """Keyword arguments of `module.generate` for this serving, and the draft model, None without one."""
    options = {"do_sample": False, **serving.options}
    if serving.votes > 1:
        options["num_return_sequences"] = serving.votes
    draft = pretrained(folder / DRAFT, **loading).eval() if serving.draft else None
    if draft is not None:
        options["assistant_model"] = draft
    if serving.assisted:
        # A block of fixed length: the library's default adapts it to its luck, which makes every figure depend on
        # what was generated before.
        settings = (draft if draft is not None else module).generation_config
        settings.num_assistant_tokens = serving.block
        settings.num_assistant_tokens_schedule = "constant"
        settings.assistant_confidence_threshold = 0.0
    return options, draft


def generate(model: Any, prompts: list[str], *, max_new_tokens: int) -> list[str]:
    """Continuations of `prompts`, without them, by a `TransformersModel` the way it is served."""
    serving: Serving = model.served
    asked = [serving.before + prompt + serving.after for prompt in prompts]
    singly = serving.assisted or serving.options.get("do_sample")
    groups = [[prompt] for prompt in asked] if singly else [asked]
    return [text for group in groups for text in _generate(model, group, max_new_tokens)]


def _generate(model: Any, prompts: list[str], max_new_tokens: int) -> list[str]:
    import torch

    serving: Serving = model.served
    batch = model.tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left")
    batch = {name: batch[name].to(model.module.device) for name in ("input_ids", "attention_mask")}
    devices = [model.module.device] if batch["input_ids"].is_cuda else []
    with torch.inference_mode(), torch.random.fork_rng(devices):
        torch.manual_seed(_seed(serving.seed, prompts))
        ids = model.module.generate(
            **batch,
            max_new_tokens=max_new_tokens,
            pad_token_id=model.tokenizer.pad_token_id,
            **model.serving,
        )
    texts = model.tokenizer.batch_decode(ids[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return [vote(texts[i : i + serving.votes], serving.answer) for i in range(0, len(texts), serving.votes)]


def vote(completions: list[str], answer: str = "") -> str:
    """The first completion among those whose answer is the commonest (self-consistency, arXiv 2203.11171).

    `answer` is a regular expression: its last match (its first group, where it has one) is the answer; without one
    the whole completion is.
    """
    found = [_answer(text, answer) for text in completions]
    counts = Counter(a for a in found if a is not None)
    return completions[found.index(counts.most_common(1)[0][0])] if counts else completions[0]


def _answer(text: str, pattern: str) -> str | None:
    if not pattern:
        return text.strip()
    matches = list(re.finditer(pattern, text))
    if not matches:
        return None
    return matches[-1].group(1 if matches[-1].re.groups else 0).strip()


def _seed(seed: int, prompts: list[str]) -> int:
    return int.from_bytes(sha256(f"{seed}:{prompts}".encode()).digest()[:7], "big")


@contextmanager
def counted(module: Any) -> Iterator[list[Block]]:
    """Within the block, every pass of assisted generation by `module` is noted in the list."""
    blocks: list[Block] = []
    make = module._get_candidate_generator

    def watched(**arguments: Any) -> Any:
        drafts = make(**arguments)
        propose, learn = drafts.get_candidates, drafts.update_candidate_strategy
        drafted = 0

        def proposed(ids: Any, **rest: Any) -> Any:
            nonlocal drafted
            found = propose(ids, **rest)
            drafted = found[0].shape[1] - ids.shape[1]
            return found

        def learnt(ids: Any, scores: Any, matches: int) -> Any:
            blocks.append(Block(drafted, int(matches)))
            return learn(ids, scores, matches)

        drafts.get_candidates, drafts.update_candidate_strategy = proposed, learnt
        return drafts

    module._get_candidate_generator = watched
    try:
        yield blocks
    finally:
        del module._get_candidate_generator


def over(below: Serving, above: Serving) -> Serving:
    """A serving on top of another: what `above` says, and else what `below` says."""
    said = above.shown()
    options = {**below.options, **above.options}
    return replace(below, **{**said, "options": options})
