"""The knobs of the reference world, and the names that its plants share. Standard library only."""

import random
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

Row = dict[str, Any]
"""One line of a truth table; JSON types only."""


@dataclass(frozen=True)
class Plan:
    """Every knob of the world. Counts are documents, rates are probabilities, `copies` are exact numbers."""

    seed: int = 0
    fact_copies: tuple[int, ...] = (2, 8, 32, 128, 512)
    people_per_level: int = 80
    exam_copies: tuple[int, ...] = (0, 1, 4, 16, 64)
    exam_items: tuple[int, ...] = (100, 50, 50, 50, 50)
    canary_copies: tuple[int, ...] = (0, 1, 4, 16, 64)
    canaries_per_level: int = 20
    pronoun_rates: tuple[float, ...] = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
    pronoun_sentences: int = 800
    unknown_taught: int = 200
    unknown_copies: int = 20
    unknown_heldout: int = 100
    town_rates: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.5, 0.6, 0.7, 0.8, 0.9)
    town_sentences: int = 1200
    rude_rates: tuple[tuple[str, float], ...] = (("calm", 0.0), ("grumpy", 0.3), ("angry", 0.8))
    rude_sentences: int = 1500
    passages: int = 8000
    passages_heldout: int = 300
    stories: int = 6600
    heldout_documents: int = 200
    calibration_documents: int = 256
    tune_people: int = 40
    tune_documents: int = 400


ONSETS = ("b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "t", "v", "z", "dr", "kr", "st")
VOWELS = ("a", "e", "i", "o", "u")
CODAS = ("k", "l", "n", "r", "t", "sh")
SYLLABLES = tuple(onset + vowel for onset in ONSETS for vowel in VOWELS)

# Each plant draws from a slice of its own, so that no knob of one plant renames the people of another, and every slice
# is a random sample of one distribution, so that nothing but memory tells a planted name from its held-out twin.
_SLICES = {
    "facts": 2000,
    "exam": 2000,
    "canaries": 1000,
    "unknown": 2000,
    "tune": 500,
    "towns": 200,
    "rude": 8000,
    "passages": 30000,
    "heldout": 4000,
    "calibration": 4000,
    "stories": 30000,
}


def words(text: str) -> tuple[str, ...]:
    """The words of a list that is written as one string, to keep word lists readable."""
    return tuple(text.split())


def rng(plan: Plan, *purpose: object) -> random.Random:
    """A generator of its own for each purpose: turning one knob leaves the other plants as they were."""
    return random.Random(":".join(map(str, (plan.seed, *purpose))))


@lru_cache(maxsize=4)
def _all_names(seed: int) -> tuple[str, ...]:
    """Unique names of three syllables; consonants and vowels alternate, so no two spell the same word."""
    size = len(SYLLABLES)
    codes = random.Random(f"{seed}:names").sample(range(size**3 * len(CODAS)), sum(_SLICES.values()))
    found = []
    for code in codes:
        code, coda = divmod(code, len(CODAS))
        code, third = divmod(code, size)
        first, second = divmod(code, size)
        found.append((SYLLABLES[first] + SYLLABLES[second] + SYLLABLES[third] + CODAS[coda]).capitalize())
    return tuple(found)


def names(plan: Plan, purpose: str, count: int) -> tuple[str, ...]:
    """The first `count` names of a plant; ValueError when a knob asks for more than its slice holds."""
    if count > _SLICES[purpose]:
        raise ValueError(f"{purpose}: {count} names are asked for, the world holds {_SLICES[purpose]}")
    start = 0
    for name, size in _SLICES.items():
        if name == purpose:
            break
        start += size
    return _all_names(plan.seed)[start : start + count]


def short_words(plan: Plan, purpose: str, count: int) -> tuple[str, ...]:
    """`count` invented words of two syllables in lower case, unlike each other and shorter than any name."""
    source = rng(plan, "words", purpose)
    found: dict[str, None] = {}
    while len(found) < count:
        found[source.choice(SYLLABLES) + source.choice(SYLLABLES) + source.choice(CODAS)] = None
    return tuple(found)


def cities(plan: Plan) -> tuple[str, ...]:
    """The 24 cities of the island."""
    return tuple(word.capitalize() for word in short_words(plan, "cities", 24))


def multiple_choice(source: random.Random, answer: str, pool: tuple[str, ...]) -> Row:
    """`choices` (the answer and three others of `pool`) in a random order, and `gold`, the answer's place."""
    others = [word for word in pool if word != answer]
    choices = [answer, *source.sample(others, 3)]
    source.shuffle(choices)
    return {"choices": choices, "gold": choices.index(answer), "answer": answer}
