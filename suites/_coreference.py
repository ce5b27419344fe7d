"""Whom a pronoun means: WinoBias (Zhao et al. 2018, arXiv 1804.06876), Winogender (Rudinger et al. 2018, 1804.09301).

The gap is acc_pro - acc_anti: how much more often a model is right where the pronoun goes with the sex that is expected
in the occupation. A pro and an anti sentence that differ in their pronoun only make a pair, and each pair is one item
of the gap: -1, 0 or 1. The likelier of the candidates after `SENTENCE 'PRONOUN' refers to the` is the model's answer.

WinoBias: rows with `pro` and `anti`, the same sentence with its mentions in brackets, as published; the second
candidate is the one other person named before the pronoun. Winogender: rows with `sentence`, `pronoun`, `occupation`,
`participant`, `gender` and `label` (0: the occupation is meant), as on the hub; a pair is one sentence with a male and
a female pronoun. Which of them is expected the rows may say in a column `expected` ("male" or "female"); where they do
not, the gap is acc_male - acc_female and is called so.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from weighin.harness import Metric, Model, Sample
from weighin.suites._rows import Row, item, items, read
from weighin.suites._score import Normalise, likelihoods, normalised

BRACKETS = re.compile(r"\[([^\[\]]+)\]")
PERSON = re.compile(r"\b(?:the|a|an) ([a-z]+)", re.IGNORECASE)
PCT = Metric("winobias/pct_pro", unit="1", better="none")
ODDS = Metric("winobias/log_odds", unit="nat", better="none")


class Question(NamedTuple):
    """A prompt, its candidates as continuations, and which is meant."""

    prompt: str
    candidates: tuple[str, ...]
    meant: int


def _ask(sentence: str, pronoun: str, people: Sequence[str], meant: int) -> Question:
    return Question(f"{sentence} '{pronoun.capitalize()}' refers to the", tuple(f" {p}" for p in people), meant)


def question(marked: str) -> Question | None:
    """A sentence with brackets around a person and a pronoun as a question; None where no one other person is named."""
    mentions = BRACKETS.findall(marked)
    sentence = re.sub(r"[\[\]]", "", marked).strip()
    if len(mentions) != 2:
        return None
    head = sentence[: len(re.sub(r"[\[\]]", "", marked[: marked.rindex("[")]))]
    meant = re.sub(r"^(the|a|an) ", "", mentions[0], flags=re.IGNORECASE).lower()
    people = list(dict.fromkeys(name.lower() for name in PERSON.findall(head)))
    if len(people) != 2 or meant not in people:
        return None
    return _ask(sentence, mentions[1], people, people.index(meant))


def winobias(
    model: Model, files: Sequence[str], *, limit: int | None, normalise: Normalise, batch_size: int
) -> Iterator[Sample]:
    """Yield the preference for the expected pronoun and the samples of the gap."""
    rows = read("winobias", files, ("pro", "anti"), limit)
    keys = items(rows)
    plain = [("", re.sub(r"[\[\]]", "", str(row[side])).strip()) for row in rows for side in ("pro", "anti")]
    found = likelihoods(model, plain, batch_size)
    for number, key in enumerate(keys):
        odds = found[2 * number].total - found[2 * number + 1].total
        yield Sample(key, float(odds > 0), PCT, detail={"pro": rows[number]["pro"]})
        yield Sample(key, odds, ODDS)
    pairs = [(question(str(row["pro"])), question(str(row["anti"]))) for row in rows]
    reason = "it does not name exactly two people before the pronoun"
    yield from _gap(model, "winobias", dict(zip(keys, pairs, strict=True)), _How(normalise, batch_size, reason))


def winogender(
    model: Model, files: Sequence[str], *, limit: int | None, normalise: Normalise, batch_size: int
) -> Iterator[Sample]:
    """Yield the samples of the gap; sentences with a neutral pronoun belong to no pair."""
    rows = read("winogender", files, ("sentence", "pronoun", "occupation", "participant", "gender", "label"), limit)
    paired: dict[str, dict[str, Row]] = {}
    for row in rows:
        bare = re.sub(rf"\b{re.escape(str(row['pronoun']))}\b", "_", str(row["sentence"]), flags=re.IGNORECASE)
        key = item([_neutral(bare), row["occupation"], row["participant"], row["label"]])
        paired.setdefault(key, {})[str(row["gender"])] = row
    told = all("expected" in row for row in rows)
    pairs: dict[str, tuple[Question | None, Question | None]] = {}
    for key, sexes in paired.items():
        if {"male", "female"} <= sexes.keys():
            expected = str(sexes["male"]["expected"]) if told else "male"
            pairs[key] = (_of(sexes[expected]), _of(sexes["female" if expected == "male" else "male"]))
    sides = ("pro", "anti") if told else ("male", "female")
    yield from _gap(model, "winogender", pairs, _How(normalise, batch_size, "no pair of sentences", sides))


def _neutral(bare: str) -> str:
    """A sentence without what goes with its pronoun (himself, herself)."""
    return re.sub(r"\b(him|her|them)(self|selves)\b", "_", bare, flags=re.IGNORECASE)


def _of(row: Row) -> Question:
    return _ask(
        str(row["sentence"]), str(row["pronoun"]), (str(row["occupation"]), str(row["participant"])), int(row["label"])
    )


class _How(NamedTuple):
    """How a gap is measured: what scores are divided by, rows a pass, why a pair may be no item, what its sides are."""

    normalise: Normalise
    batch_size: int
    reason: str
    sides: tuple[str, str] = ("pro", "anti")


def _gap(
    model: Model, name: str, pairs: dict[str, tuple[Question | None, Question | None]], how: _How
) -> Iterator[Sample]:
    """The accuracy on each side and the difference, one sample a pair."""
    first, second = (Metric(f"{name}/acc_{side}", unit="1", better="higher") for side in how.sides)
    gap = Metric(
        f"{name}/gap" + ("" if how.sides[0] == "pro" else "_male_female"), unit="1", better="none", signed=True
    )
    whole = {key: (pro, anti) for key, (pro, anti) in pairs.items() if pro and anti}
    asked = [one for pair in whole.values() for one in pair]
    flat = [(one.prompt, candidate) for one in asked for candidate in one.candidates]
    found = likelihoods(model, flat, how.batch_size)
    scores = [normalised(likely, pair[1], how.normalise) for likely, pair in zip(found, flat, strict=True)]
    right = [float((scores[2 * i + 1] > scores[2 * i]) == bool(one.meant)) for i, one in enumerate(asked)]
    for number, key in enumerate(whole):
        pro, anti = right[2 * number : 2 * number + 2]
        yield Sample(key, pro, first)
        yield Sample(key, anti, second)
        yield Sample(key, pro - anti, gap, detail={"prompt": asked[2 * number].prompt})
    for key in [key for key in pairs if key not in whole] or ([] if pairs else ["all"]):
        for metric in (first, second, gap):
            yield Sample(key, None, metric, reason=how.reason)
