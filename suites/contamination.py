"""Contamination: whether a model has read the texts it is examined on.

Four kinds of evidence, from the strongest down. Overlap: the texts' runs of tokens stand in the training text, where
that is at hand. Order: the model finds the order of the file likelier than others (Oren et al., arXiv 2310.17623).
Membership: it finds the texts likelier than others of the same kind, by loss, zlib, Min-K% and Min-K%++, and by what it
finds likelier than its parent does. Performance: it answers the exam in its own words better than in others, by more
than clean models do.

A membership figure means something only where nothing but training tells the two sets apart, so classifiers that never
ask the model are tried first: where they succeed, the figures are not attributable, and are withheld.

None of this can show that a model has not read a text. In the reference models one copy is not seen, four are seen in
part, sixteen are.
"""

from collections.abc import Iterator, Mapping
from math import isfinite
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from weighin.harness import Abstain, Metric, Model, Sample, suite
from weighin.harness.text import documents, in_order, text_files
from weighin.suites._blind import LEAST, Blind, blind
from weighin.suites._membership import auroc, bootstrap, delong, order_test, scores, tpr, unexplained
from weighin.suites._ordered import order_scores
from weighin.suites._overlap import overlaps
from weighin.suites._rephrased import lead, load_exam, load_reference, reference_folder
from weighin.suites._token_scores import Tokens, score

SCORES = ("loss", "zlib", "mink", "minkpp", "ref")
AUROC = {name: Metric(f"auroc_{name}", unit="1", better="lower") for name in SCORES}
TPR = {name: Metric(f"tpr_at_1_fpr_{name}", unit="1", better="lower") for name in SCORES}
BLIND = Metric("auroc_blind", unit="1", better="none")
OVERLAP = {n: Metric(f"overlap_{n}", unit="1", better="lower") for n in (13, 8)}
LONGEST = Metric("longest_match", unit="token", better="lower", reduce="max")
ORDER = Metric("order_p", unit="1", better="higher")
GAP = Metric("performance_gap", unit="1", better="lower")
LIMIT = (
    "in the reference models a single copy of a text is not seen, 4 are in part (AUROC about .75), 16 or more are; "
    "this cannot show that a text was not read"
)


def _reads(params: Mapping[str, Any]) -> list[Path]:
    data = [params[name] for name in ("members", "nonmembers", "training_text", "exam") if params[name]]
    folders = [reference_folder(name) for name in params["references"]]
    return [file for each in data for file in text_files({"data": each})] + [
        file for folder in folders for file in sorted(folder.rglob("*")) if file.is_file()
    ]


@suite(
    GAP,
    *AUROC.values(),
    *TPR.values(),
    BLIND,
    *OVERLAP.values(),
    LONGEST,
    ORDER,
    needs=("torch", "sklearn"),
    reads=_reads,
    example={"samples": 12, "max_length": 64, "permutations": 2, "shard": 2},
)
def contamination(
    model: Model,
    *,
    members: str = "reference:exam_leaked",
    nonmembers: str = "reference:exam_heldout",
    training_text: str | None = None,
    exam: str | None = "reference:exam_leaked",
    references: list[str] = [],  # noqa: B006  (a schema's default, never changed)
    k: Annotated[float, Field(gt=0, le=1)] = 0.2,
    samples: Annotated[int, Field(gt=0)] | None = 500,
    max_length: Annotated[int, Field(gt=1)] = 256,
    batch_size: Annotated[int, Field(gt=0)] = 16,
    shard: Annotated[int, Field(gt=1)] = 8,
    permutations: Annotated[int, Field(ge=0)] = 10,
    prompt: str = "Question: {question}\nAnswer:",
    seed: int = 0,
) -> Iterator[Sample]:
    """Yield figures of the two sets, one sample a member for the overlap, and one each for order and performance.

    `members` are the texts that the model may have read, in the order of their file, `nonmembers` others of the same
    kind. `references` are models that have not read them: directories or `reference:NAME`. Where a variant has a
    parent, that calibrates the score `ref`; else the first reference does.
    """
    texts = documents(members, samples=samples, seed=seed)
    others = [text for text in documents(nonmembers, samples=samples, seed=seed) if text not in set(texts)]
    calibrator = model.relative("parent") or (load_reference(references[0], model) if references else None)
    yield from membership(model, (texts, others), calibrator, k, min(max_length, model.window), batch_size)
    yield from _overlap(model, texts, training_text)
    yield from _order(model, in_order(members)[:samples], (shard, permutations, batch_size, seed))
    yield from _gap(model, (exam, samples, seed), references, prompt, batch_size)


def membership(
    model: Model, sets: tuple[list[str], list[str]], calibrator: Model | None, k: float, length: int, batch_size: int
) -> Iterator[Sample]:
    """AUROC and TPR of each score on (members, non-members), withheld where they could not be attributed to training.

    `calibrator` is the model whose log-probabilities are taken off for `ref`; None gives no `ref`.
    """
    if min(map(len, sets)) < LEAST:
        raise Abstain(f"{len(sets[0])} members and {len(sets[1])} others: {LEAST} of each are the least to compare")
    seen = blind(*sets)
    weight = sum(map(len, sets))
    yield Sample(
        "all", seen.auroc.value, BLIND, weight, low=seen.auroc.low, high=seen.auroc.high, detail={"by": seen.name}
    )
    found, reason = _scored(model, sets, calibrator, k, length, batch_size)
    for name in SCORES:
        if name not in found:
            for metric in (AUROC[name], TPR[name]):
                yield Sample("all", None, metric, reason=f"{reason}; {LIMIT}")
            continue
        ours, theirs = (found[name][: len(sets[0])], found[name][len(sets[0]) :])
        told = {AUROC[name]: delong(ours, theirs), TPR[name]: bootstrap(tpr, ours, theirs)}
        for metric, value in told.items():
            detail: dict[str, Any] = {"members": len(ours), "nonmembers": len(theirs), "detection_limit": LIMIT}
            if name == "ref":  # a parent that tells the sets apart has read them itself, or they are not alike
                detail["loss_of_parent"] = auroc(found["before"][: len(ours)], found["before"][len(ours) :])
            if seen.separates:
                yield Sample("all", None, metric, reason=not_attributable(seen), detail={**detail, "raw": list(value)})
            else:
                yield Sample("all", value.value, metric, weight, low=value.low, high=value.high, detail=detail)


def not_attributable(seen: Blind) -> str:
    """Why a figure is withheld."""
    value, low, high = seen.auroc
    return (
        f"not attributable: without the model, {seen.name} tell the two sets apart (AUROC {value:.2f}, {low:.2f} to "
        f"{high:.2f}); match them in style, topic and date. The raw figure is in the detail; {LIMIT}"
    )


def _scored(
    model: Model, sets: tuple[list[str], list[str]], calibrator: Model | None, k: float, length: int, batch_size: int
) -> tuple[dict[str, list[float]], str]:
    """Each score of members, then non-members, and the calibrator's loss as `before`; and why there is no `ref`."""
    texts = [*sets[0], *sets[1]]
    rows = [model.encode(text)[:length] for text in texts]
    if min(map(len, rows)) < 2:
        raise Abstain("a text is one token long: nothing predicts it")
    tokens = score(model, rows, batch_size)
    each = [scores(text, one.t, one.z, k) for text, one in zip(texts, tokens, strict=True)]
    found = {name: [getattr(one, name) for one in each] for name in SCORES if name != "ref"}
    if calibrator is None:
        return found, "a base has no parent to calibrate by, and no reference was named"
    if calibrator.tokenizer.get_vocab() != model.tokenizer.get_vocab():
        return found, "its vocabulary is not its parent's (or reference's): tokens cannot be compared"
    before: list[Tokens] = score(calibrator, rows, batch_size)
    found["before"] = [float(old.t.mean()) for old in before]
    found["ref"] = [new - old for new, old in zip(found["loss"], found["before"], strict=True)]
    return found, ""


def _overlap(model: Model, texts: list[str], training_text: str | None) -> Iterator[Sample]:
    if training_text is None:
        for metric in (*OVERLAP.values(), LONGEST):
            yield Sample("all", None, metric, reason="no training_text was named: what was read is not known")
        return
    from hashlib import sha256

    def ids(text: str) -> list[int]:
        return list(model.tokenizer(text, add_special_tokens=False).input_ids)

    found = overlaps([ids(text) for text in texts], (ids(text) for text in in_order(training_text)))
    for text, one in dict(zip(texts, found, strict=True)).items():
        item = sha256(text.encode()).hexdigest()[:32]
        yield Sample(item, one.long, OVERLAP[13])
        yield Sample(item, one.short, OVERLAP[8])
        yield Sample(item, float(one.longest), LONGEST)


def _order(model: Model, items: list[str], options: tuple[int, int, int, int]) -> Iterator[Sample]:
    shard, permutations, batch_size, seed = options
    try:
        if not permutations:
            raise Abstain("permutations: 0 switches the order test off")
        own, other, size = order_scores(model, items, shard, permutations, batch_size, seed)
    except Abstain as reason:
        yield Sample("all", None, ORDER, reason=str(reason))
        return
    found = order_test(own, other)
    detail = {
        "t": found.t if isfinite(found.t) else None,
        "shards": len(own),
        "items_a_shard": size,
        "permutations": permutations,
    }
    yield Sample("all", found.p, ORDER, len(items), detail={**detail, "detection_limit": LIMIT})


def _gap(
    model: Model, source: tuple[str | None, int | None, int], references: list[str], prompt: str, batch_size: int
) -> Iterator[Sample]:
    exam, samples, seed = source
    if exam is None or len(references) < 3:
        lacks = "no exam was named" if exam is None else (
            f"lacks reference models that have not read the exam: needs 3 or more, has {len(references)}. How much "
            "better clean models are in the exam's own words, and how they differ in that, is not known without them"
        )  # fmt: skip
        yield Sample("all", None, GAP, reason=f"{lacks}; {LIMIT}")
        return
    asked = load_exam(exam, samples, seed)
    own = lead(model, asked, prompt, batch_size)
    clean_leads = [lead(load_reference(name, model), asked, prompt, batch_size) for name in references]
    found = unexplained(own, clean_leads)
    detail = {"p": found.p, "lead": own, "reference_leads": clean_leads, "detection_limit": LIMIT}
    yield Sample("all", found.value, GAP, len(asked), low=found.low, high=found.high, detail=detail)
