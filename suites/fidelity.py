"""Fidelity: how far a variant's predictions are from its parent's and from the root's of its chain.

KL divergence and top-1 agreement over held-out text, teacher-forced (each document is a cluster), and answer flips on
multiple-choice tasks: the share of questions whose likeliest choice changed, in whatever direction. A base has no
parent, so it abstains; so does a variant with another vocabulary.

KL(parent ‖ variant) = Σ_v p_parent(v) · ln(p_parent(v) / p_variant(v)) a token, nats, in float32, as llama.cpp's
`--kl-divergence` has it; flips after Dutta et al. (arXiv 2407.09141).
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from weighin.harness import Abstain, Metric, Model, Sample, suite
from weighin.harness.text import documents, encode, text_files
from weighin.suites._lm_eval import Options, evaluate, item_keys, load_tasks, task_files

Kin = Literal["parent", "root"]
KINS: tuple[Kin, ...] = ("parent", "root")
KL = {kin: Metric(f"kl_{kin}", unit="nat/token", better="lower") for kin in KINS}
TOP1 = {kin: Metric(f"top1_{kin}", unit="1", better="higher") for kin in KINS}
FLIPS = {kin: Metric(f"flips_{kin}", unit="1", better="lower") for kin in KINS}


class _Measured(NamedTuple):
    """What a relative gives: each document's divergence, each question's answer."""

    divergence: list[tuple[str, float, float, int]]
    answers: dict[str, tuple[int, str | None]]


def _reads(params: Mapping[str, Any]) -> list[Path]:
    return text_files({"data": params["data"]}) + task_files(params)


@suite(
    *KL.values(),
    *TOP1.values(),
    *FLIPS.values(),
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
    relatives = {kin: model.relative(kin) for kin in KINS}
    if not any(relatives.values()):
        raise Abstain("a base has no parent to be faithful to")
    texts = documents(data, samples=samples, seed=seed)
    rows = list(dict.fromkeys(map(tuple, encode(model.tokenizer, texts, min(max_length, model.window)))))
    options = Options(limit=limit, batch_size=batch_size)
    own = _answers(model, tasks, options)
    known: dict[str, _Measured] = {}  # a stage's first variant has one model for a parent and a root
    for kin, other in relatives.items():
        if other is None:
            for metric in (KL[kin], TOP1[kin], FLIPS[kin]):
                yield Sample("all", None, metric, reason=f"the {kin} is not on this machine")
            continue
        if other.tokenizer.get_vocab() != model.tokenizer.get_vocab():
            raise Abstain(f"its vocabulary is not its {kin}'s: their predictions cannot be compared token by token")
        key = other.checkpoint.key
        if key not in known:
            known[key] = _Measured(_divergence(model, other, rows, batch_size), _answers(other, tasks, options))
        for item, kl, top1, tokens in known[key].divergence:
            yield Sample(item, kl, KL[kin], weight=tokens)
            yield Sample(item, top1, TOP1[kin], weight=tokens)
        for item, (answer, cluster) in own.items():
            yield Sample(item, float(answer != known[key].answers[item][0]), FLIPS[kin], cluster=cluster)


def _divergence(
    model: Model, other: Model, rows: list[tuple[int, ...]], batch_size: int
) -> list[tuple[str, float, float, int]]:
    """Each document's content hash, mean KL and top-1 agreement, and the tokens predicted in it."""
    import hashlib

    from tqdm import tqdm

    found = []
    for start in tqdm(range(0, len(rows), batch_size), desc="KL divergence"):
        batch = [list(row) for row in rows[start : start + batch_size]]
        new, old = model.logprobs(batch), other.logprobs(batch)
        kl = (old.exp() * (old - new)).sum(-1)
        same = (old.argmax(-1) == new.argmax(-1)).float()
        for index, row in enumerate(batch):
            item = hashlib.sha256(str(row).encode()).hexdigest()[:32]
            tokens = len(row) - 1  # what follows the last token is known to nobody
            found.append((item, float(kl[index, :tokens].mean()), float(same[index, :tokens].mean()), tokens))
    return found


def _answers(model: Model, tasks: list[str], options: Options) -> dict[str, tuple[int, str | None]]:
    """The likeliest choice of each question by its content hash, and the cluster it belongs to."""
    if not tasks:
        return {}
    loaded = load_tasks(tasks, options)
    found: dict[str, tuple[int, str | None]] = {}
    for name, logged in evaluate(model, loaded, options).items():
        task = loaded["tasks"][name]
        if task.get_config("output_type") != "multiple_choice":
            raise Abstain(f"tasks: {name} is not multiple choice: it has no answers that could flip")
        field = (task.get_config("metadata") or {}).get("cluster")
        for sample, item in zip(logged, item_keys(logged), strict=True):
            scores = [r[0] for r in sample["filtered_resps"]]
            cluster = f"{name}:{sample['doc'][field]}" if field else None
            found[f"{name}:{item}"] = (max(range(len(scores)), key=scores.__getitem__), cluster)
    return found
