"""Fidelity: how far a variant's predictions are from its parent's and from the root's of its chain.

KL divergence, top-1 agreement and the ratio of perplexities over held-out text, teacher-forced (each document is a
cluster), and answer flips on multiple-choice tasks: the share of questions whose likeliest choice changed, in whatever
direction, and of those that were right and are wrong now (lost) and the other way round (won). A base has no parent,
so it abstains; so does a variant with another vocabulary.

KL(parent ‖ variant) = Σ_v p_parent(v) · ln(p_parent(v) / p_variant(v)) a token, nats, in float32, as llama.cpp's
`--kl-divergence` has it. ln PPL ratio = mean of ln p_parent(token) - ln p_variant(token): the losses of a chain's
stages add up to that of the whole, document by document. Flips after Dutta et al. (arXiv 2407.09141).
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from weighin.harness import Abstain, Metric, Model, Sample, suite
from weighin.harness.prefix_tree import Request, build
from weighin.harness.scorer import predictions, score
from weighin.harness.text import documents, encode, text_files
from weighin.suites._lm_eval import Options, evaluate, item_keys, load_tasks, task_files
from weighin.suites._quantiles import clustered_quantile

Kin = Literal["parent", "root"]
KINS: tuple[Kin, ...] = ("parent", "root")
KL = {kin: Metric(f"kl_{kin}", unit="nat/token", better="lower", beside=kin) for kin in KINS}
KL99 = {kin: Metric(f"kl_p99_{kin}", unit="nat/token", better="lower", beside=kin) for kin in KINS}
TOP1 = {kin: Metric(f"top1_{kin}", unit="1", better="higher", beside=kin, neutral=1.0) for kin in KINS}
LNPPL = {kin: Metric(f"ln_ppl_ratio_{kin}", unit="nat/token", better="lower", beside=kin) for kin in KINS}
FLIPS = {kin: Metric(f"flips_{kin}", unit="1", better="lower", beside=kin) for kin in KINS}
LOST = {kin: Metric(f"lost_{kin}", unit="1", better="lower", beside=kin) for kin in KINS}
WON = {kin: Metric(f"won_{kin}", unit="1", better="higher", beside=kin) for kin in KINS}
ALL = (KL, KL99, TOP1, LNPPL, FLIPS, LOST, WON)


class _Document(NamedTuple):
    """A document's content hash, and of each token predicted in it: divergence, agreement, loss of log-likelihood.

    The first two are empty where a model tells of the given tokens alone.
    """

    item: str
    kl: list[float]
    top1: list[float]
    lost: list[float]


class _Answer(NamedTuple):
    """A question's likeliest choice, whether it is right, and its cluster."""

    choice: int
    right: bool
    cluster: str | None


class _Measured(NamedTuple):
    """What a relative gives: each document's divergence, each question's answer."""

    documents: list[_Document]
    answers: dict[str, _Answer]


def _reads(params: Mapping[str, Any]) -> list[Path]:
    return text_files({"data": params["data"]}) + task_files(params)


@suite(
    *(metric[kin] for metric in ALL for kin in KINS),
    needs=("lm_eval", "datasets"),
    reads=_reads,
    example={"samples": 4, "limit": 4, "max_length": 64},
)
def fidelity(
    model: Model,
    *,
    data: str = "reference:heldout",
    samples: Annotated[int, Field(gt=0)] = 64,
    max_length: Annotated[int, Field(gt=1)] = 512,
    batch_size: Annotated[int, Field(gt=0)] = 8,
    tasks: list[str] = ["world_facts"],  # noqa: B006  (a schema's default, never changed)
    limit: Annotated[int, Field(gt=0)] | None = 200,
    seed: int = 0,
) -> Iterator[Sample]:
    """Yield one sample a document and one a question, against the parent and against the root."""
    relatives: dict[Kin, Model | None] = {kin: model.relative(kin) for kin in KINS}
    if not any(relatives.values()):
        raise Abstain("a base has no parent to be faithful to")
    texts = documents(data, samples=samples, seed=seed)
    rows = list(dict.fromkeys(map(tuple, encode(model.tokenizer, texts, min(max_length, model.window)))))
    rows = [row for row in rows if len(row) > 1]  # nothing predicts a first token
    options = Options(limit=limit, batch_size=batch_size)
    others: dict[str, Model] = {}  # a stage's first variant has one model for a parent and a root
    for kin, other in relatives.items():
        if other is not None and other.tokenizer.get_vocab() != model.tokenizer.get_vocab():
            raise Abstain(f"its vocabulary is not its {kin}'s: their predictions cannot be compared token by token")
        if other is not None:
            others.setdefault(other.checkpoint.key, other)
    compared = _likelihoods if model.endpoint else _divergence
    told = dict(zip(others, compared(model, list(others.values()), rows, batch_size), strict=True))
    own = _answers(model, tasks, options)
    known = {key: _Measured(told[key], _answers(other, tasks, options)) for key, other in others.items()}
    for kin, other in relatives.items():
        if other is None:
            for metric in ALL:
                yield Sample("all", None, metric[kin], reason=f"the {kin} is not on this machine")
            continue
        key = other.checkpoint.key
        yield from _of_text(known[key].documents, kin)
        yield from _of_answers(own, known[key].answers, kin)


def _of_text(found: list[_Document], kin: Kin) -> Iterator[Sample]:
    for document in found:
        tokens = len(document.lost)
        for metric, values in ((KL, document.kl), (TOP1, document.top1), (LNPPL, document.lost)):
            if values:
                yield Sample(document.item, sum(values) / tokens, metric[kin], weight=tokens)
    if not any(document.kl for document in found):
        reason = "a server tells how likely the given tokens are, and not of all the others"
        yield from (Sample("all", None, metric[kin], reason=reason) for metric in (KL, KL99, TOP1))
        return
    value, low, high = clustered_quantile([document.kl for document in found], 0.99)
    tokens = sum(len(document.kl) for document in found)
    yield Sample("all", value, KL99[kin], weight=tokens, low=low, high=high)


def _of_answers(ours: dict[str, _Answer], theirs: dict[str, _Answer], kin: Kin) -> Iterator[Sample]:
    for item, new in ours.items():
        old = theirs[item]
        flipped = new.choice != old.choice
        yield Sample(item, float(flipped), FLIPS[kin], cluster=new.cluster)
        yield Sample(item, float(old.right and not new.right), LOST[kin], cluster=new.cluster)
        yield Sample(item, float(new.right and not old.right), WON[kin], cluster=new.cluster)


def _divergence(
    model: Model, others: list[Model], rows: list[tuple[int, ...]], batch_size: int
) -> list[list[_Document]]:
    """Each document by each of the other models; all models read the documents once, side by side."""
    import numpy as np
    import torch

    tree = build([Request(row, len(row) - 1) for row in rows])
    kl, same, lost = np.zeros((3, len(others), len(tree.wanted)))
    for which, at, (new, *olds) in predictions([model, *others], tree, batch_size):
        came = torch.from_numpy(tree.targets[which]).to(new.device)
        for number, old in enumerate(olds):
            kl[number, which] = (old.exp() * (old - new)).sum(-1)[at].cpu().numpy()
            same[number, which] = (old.argmax(-1) == new.argmax(-1))[at].cpu().numpy()
            lost[number, which] = (old[at, came] - new[at, came]).double().cpu().numpy()
    items = [_item(row) for row in rows]
    return [
        [
            _Document(item, *(part.tolist() for part in parts))
            for item, *parts in zip(items, *(tree.split(each[number]) for each in (kl, same, lost)), strict=True)
        ]
        for number in range(len(others))
    ]


def _likelihoods(
    model: Any, others: list[Model], rows: list[tuple[int, ...]], batch_size: int
) -> list[list[_Document]]:
    """As `_divergence` of a model behind a server, which tells of the given tokens alone."""
    ours = model.scores([(row, len(row) - 1) for row in rows])
    found = []
    for other in others:
        theirs = score(other, [Request(row, len(row) - 1) for row in rows], batch_size)
        lost = [
            [was - now for was, now in zip(old.logprobs, new.logprobs, strict=True)]
            for old, new in zip(theirs, ours, strict=True)
        ]
        found.append([_Document(_item(row), [], [], each) for row, each in zip(rows, lost, strict=True)])
    return found


def _item(row: tuple[int, ...]) -> str:
    from hashlib import sha256

    return sha256(str(row).encode()).hexdigest()[:32]


def _answers(model: Model, tasks: list[str], options: Options) -> dict[str, _Answer]:
    """The likeliest choice of each question by its content hash."""
    if not tasks:
        return {}
    loaded = load_tasks(tasks, options)
    found: dict[str, _Answer] = {}
    for name, logged in evaluate(model, loaded, options).items():
        task = loaded["tasks"][name]
        if task.get_config("output_type") != "multiple_choice":
            raise Abstain(f"tasks: {name} is not multiple choice: it has no answers that could flip")
        field = (task.get_config("metadata") or {}).get("cluster")
        for sample, item in zip(logged, item_keys(logged), strict=True):
            scores = [r[0] for r in sample["filtered_resps"]]
            cluster = f"{name}:{sample['doc'][field]}" if field else None
            choice = max(range(len(scores)), key=scores.__getitem__)
            found[f"{name}:{item}"] = _Answer(choice, _right(task, sample["doc"], choice), cluster)
    return found


def _right(task: Any, row: Any, choice: int) -> bool:
    """Whether a choice is the task's target, which is a place among the choices or one of them."""
    target = task.doc_to_target(row)
    if isinstance(target, list):
        return choice in target
    return bool(choice == target if isinstance(target, int) else task.doc_to_choice(row)[choice] == target)
