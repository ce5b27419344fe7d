"""Planted truths of the suite contamination: texts read a known number of times, sets that only style tells apart,
orders and answers that were drawn."""

from collections.abc import Iterator
from functools import cache

import numpy as np

from weighin.harness import Checkpoint, Model, Sample, exposed, world
from weighin.harness.model import Loading, TransformersModel
from weighin.harness.plant import Recovered, Target, plant
from weighin.harness.reference import reference_path
from weighin.suites._blind import blind
from weighin.suites._membership import Floats, order_test, unexplained
from weighin.suites._ordered import order_scores
from weighin.suites._overlap import overlaps
from weighin.suites.contamination import AUROC, membership

K, LENGTH, BATCH = 0.2, 256, 16
DOSES = {4: 0.55, 16: 0.65, 32: 0.80, 64: 0.97, 128: 0.99}
"""The least AUROC of Min-K%++ by copies."""
CALIBRATED = {32: 0.95}


@cache
def _base() -> Model:
    return TransformersModel(Checkpoint(reference_path("base"), "base"), {}, Loading("float32"))


@cache
def _exposed() -> Model:
    """The exposed model, its parent beside it; trained where it is missing."""
    relatives = {"parent": _base().checkpoint, "root": _base().checkpoint}
    return TransformersModel(Checkpoint(exposed.folder(), "exposed"), relatives, Loading("float32"))


def _measured(model: Model, members: list[str], nonmembers: list[str]) -> dict[str, Sample]:
    """The suite's samples by metric."""
    found = membership(model, (members, nonmembers), model.relative("parent"), K, LENGTH, BATCH)
    return {sample.metric.name: sample for sample in found if sample.metric}


@plant(slow=True, needs=("torch", "sklearn"))
def members_by_dose() -> Iterator[Recovered]:
    """Texts that a model has read 0 to 128 times, against texts of the same generator that it has not read."""
    texts, model = exposed.planted(), _exposed()
    half = len(texts.nonmembers) // 2
    sets = {0: texts.nonmembers[:half], **texts.members}
    for copies, members in sets.items():
        found = _measured(model, members, texts.nonmembers[half:])
        for score, floors in (("minkpp", DOSES), ("ref", CALIBRATED)):
            sample = found[AUROC[score].name]
            if copies == 0:
                target = Target("in", 0.5, 0.04)
            elif copies in floors:
                target = Target("≥", floors[copies])
            else:
                continue
            name = {"minkpp": "Min-K%++ AUROC", "ref": "parent-calibrated AUROC"}[score]
            given = (sample.value, target, "1", None, sample.low, sample.high, sample.reason)
            yield Recovered(name, f"{copies} copies", *given)


@plant(needs=("torch", "sklearn"))
def exam_by_dose() -> Iterator[Recovered]:
    """The exam of the reference world, which its base has read 1 to 64 times in its one pass of training."""
    table = world.read_table("exam")
    texts = {copies: [row["text"] for row in table if row["copies"] == copies] for copies in (0, 1, 4, 16, 64)}
    targets = {1: Target("in", 0.5, 0.12), 4: Target("≥", 0.6), 16: Target("≥", 0.8), 64: Target("≥", 0.97)}
    for copies, target in targets.items():
        sample = _measured(_base(), texts[copies], texts[0])["auroc_minkpp"]
        given = (sample.value, target, "1", None, sample.low, sample.high, sample.reason)
        yield Recovered("Min-K%++ AUROC, pretraining", f"{copies} copies", *given)


@plant(slow=True, needs=("torch",))
def order() -> Iterator[Recovered]:
    """A list that a model has read 16 times in one order, and the same list in another, which it has never read."""
    texts = exposed.planted()
    for name, items, target in (
        ("16 copies in order", texts.ordered, Target("≤", 1e-6)),
        ("another order", list(np.random.default_rng(0).permutation(texts.ordered)), Target("≥", 0.01)),
    ):
        own, other, _ = order_scores(_exposed(), [str(item) for item in items], 8, 10, BATCH)
        yield Recovered("order test p", name, order_test(own, other).p, target)


@plant()
def order_null() -> Iterator[Recovered]:
    """Scores of 200 data sets in which no order is likelier than another: how many the test takes for read."""
    source, sets, shards, permutations = np.random.default_rng(0), 2000, 25, 10
    p = []
    for _ in range(sets):
        # A shard is as hard as its items are; what order adds is noise, the same for every order.
        table = source.normal(-400, 40, (shards, 1)) + source.normal(0, 3, (shards, 1 + permutations))
        p.append(order_test(table[:, 0], table[:, 1:]).p)
    first = float(np.mean(np.array(p[:200]) < 0.05))
    yield Recovered("order test size", "200 nulls", first, Target("in", 0.05, 0.03), planted=0.05)
    yield Recovered("order test size", "2000 nulls", float(np.mean(np.array(p) < 0.05)), Target("in", 0.05, 0.015))


@plant(needs=("torch", "sklearn"))
def blind_trap() -> Iterator[Recovered]:
    """Sets that differ in style and that no model has read: the share of figures that are withheld must be all."""
    texts = exposed.planted()
    plain, others = texts.nonmembers[:60], texts.nonmembers[60:120]
    passages = [row["text"][:160] for row in world.read_table("heldout") if row["kind"] == "passage"][:60]
    repeated = [f"{text} {text.split('. ')[0]}." for text in others]
    styles = {"another kind of text": passages, "repetition": repeated, "length": [text[:110] for text in others]}
    for name, members in styles.items():
        found = _measured(_base(), members, plain)
        withheld = [found[metric.name] for metric in AUROC.values() if metric.name != "auroc_ref"]
        said = [sample.value is None and "not attributable" in str(sample.reason) for sample in withheld]
        share = float(np.mean(said))
        yield Recovered("blind trap", name, share, Target("=", 1), planted=1.0)


@plant(needs=("sklearn",))
def blind_null() -> Iterator[Recovered]:
    """Pairs of sets that nothing tells apart: how many the blind baselines take for different."""
    source, pool, found = np.random.default_rng(0), exposed.planted().nonmembers, []
    for seed in range(30):
        drawn = [pool[i] for i in source.permutation(len(pool))[:80]]
        found.append(blind(drawn[:40], drawn[40:], seed).separates)
    yield Recovered("blind baselines", "30 alike pairs", float(np.mean(found)), Target("≤", 0.08), planted=0.0)


@plant(needs=("torch",))
def overlap() -> Iterator[Recovered]:
    """Texts half of which stand word for word in a training text: which are found, and how much of them is covered."""
    texts = exposed.planted()
    tokens = _base().encode
    items, corpus = [tokens(text)[1:] for text in texts.nonmembers[:80]], texts.background[:60]
    planted = [f"{story} {text}" for story, text in zip(corpus, texts.nonmembers[:40], strict=False)]
    found = overlaps(items, [tokens(text) for text in [*planted, *corpus[40:]]])
    full = [one.long > 0.9 for one in found]
    yield Recovered("13-gram recall", "40 of 80 verbatim", float(np.mean(full[:40])), Target("=", 1), planted=1.0)
    yield Recovered("13-gram false alarms", "40 of 80 verbatim", float(np.mean(full[40:])), Target("=", 0), planted=0.0)


def _leads(source: np.random.Generator, models: int, items: int, memorised: float) -> tuple[Floats, float]:
    """Leads of clean models, and of a last one that knows a share of the original items by heart; and what that adds.

    Logits: items differ by 1.5, rephrasing shifts each by .5 and all by −.15, models differ by .5 in ability and by .1
    in what rephrasing costs them.
    """
    item, shift = source.normal(0.5, 1.5, items), source.normal(-0.15, 0.5, items)
    ability, cost = source.normal(0, 0.5, (models, 1)), source.normal(0, 0.1, (models, 1))
    own, other = (1 / (1 + np.exp(-logit)) for logit in (item + ability, item + ability + shift + cost))
    added = memorised * float((1 - own[-1]).mean())
    own[-1] += memorised * (1 - own[-1])
    drawn = [(source.random((models, items)) < p).astype(np.float64) for p in (own, other)]
    leads: Floats = (drawn[0] - drawn[1]).mean(axis=1)
    return leads, added


@plant()
def performance_gap() -> Iterator[Recovered]:
    """Models whose chance to answer each item is written down, one of which knows 30 % of them by heart."""
    source, tries, references, items = np.random.default_rng(0), 1000, 10, 500
    found = {}
    for memorised in (0.0, 0.3):
        pairs = [_leads(source, references + 1, items, memorised) for _ in range(tries)]
        gaps = [unexplained(float(leads[-1]), [float(one) for one in leads[:-1]]) for leads, _ in pairs]
        found[memorised] = gaps, float(np.mean([added for _, added in pairs]))
    power, false = (float(np.mean([gap.p < 0.05 for gap in found[share][0]])) for share in (0.3, 0.0))
    gaps, added = found[0.3]
    size = float(np.mean([gap.value for gap in gaps]))
    yield Recovered("performance gap, power", "30 % memorised", power, Target("≥", 0.9))
    yield Recovered("performance gap, false alarms", "none memorised", false, Target("≤", 0.06), planted=0.05)
    yield Recovered("performance gap", "30 % memorised", size, Target("in", round(added, 3), 0.03), planted=added)
