"""Seeded changes to a prompt that leave its meaning alone: typing errors, case, spaces, punctuation, order, format.

A prompt's scaffolding stays as it is: what stands at the beginning of a line and ends in a colon ("Question:",
"Answer:"), and the letter of a listed choice ("A.", "(B)"). Every change depends on the seed and the text alone, so
that two variants of a model meet the same one.
"""

import random
import re
from collections.abc import Callable, Iterator
from hashlib import sha256

LETTER_RATE = 0.05
"""Letters that typing errors touch."""
SPACE_RATE = 0.2
"""Spaces that are doubled."""
SCAFFOLD = re.compile(r"(?m)^[ \t]*(?:[A-Za-z]+(?: [A-Za-z]+)?:|\(?[A-Z][.)])(?=\s|$)")
CHOICE = re.compile(r"(?m)^[ \t]*\(?[A-Z][.)][ \t].*\n?")
ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def _neighbours() -> dict[str, str]:
    """The keys beside each letter on a QWERTY keyboard: left and right, and above and below, half a key to the side."""
    found = {}
    for y, row in enumerate(ROWS):
        for x, key in enumerate(row):
            near = [row[i] for i in (x - 1, x + 1) if 0 <= i < len(row)]
            for other, places in ((y - 1, (x, x + 1)), (y + 1, (x - 1, x))):
                if 0 <= other < len(ROWS):
                    near += [ROWS[other][i] for i in places if 0 <= i < len(ROWS[other])]
            found[key] = "".join(near)
    return found


NEIGHBOURS = _neighbours()


def _source(text: str, kind: str, seed: int) -> random.Random:
    return random.Random(sha256(f"{kind}:{seed}:{text}".encode()).digest())


def free(text: str) -> list[bool]:
    """Which characters of a text may be changed: all that is not scaffolding."""
    may = [True] * len(text)
    for found in SCAFFOLD.finditer(text):
        may[found.start() : found.end()] = [False] * (found.end() - found.start())
    return may


def typos(text: str, source: random.Random) -> str:
    """Swap, drop, double or mistype 5 % of the letters, and at least one."""
    may = free(text)
    places = [i for i, letter in enumerate(text) if may[i] and letter.isalpha()]
    if not places:
        return text
    out = list(text)
    for place in source.sample(places, max(1, round(LETTER_RATE * len(places)))):
        letter, after = text[place], place + 1
        kinds = ["drop", "double"]
        if letter.lower() in NEIGHBOURS:
            kinds.append("neighbour")
        # Two letters change places only where neither is changed otherwise.
        if (
            after < len(text)
            and may[after]
            and text[after].isalpha()
            and text[after] != letter
            and out[after] == text[after]
        ):
            kinds.append("swap")
        kind = source.choice(kinds)
        if kind == "swap" and out[place] == letter:
            out[place], out[after] = text[after], letter
        elif kind == "neighbour":
            key = source.choice(NEIGHBOURS[letter.lower()])
            out[place] = key.upper() if letter.isupper() else key
        else:
            out[place] = "" if kind == "drop" else letter * 2
    return "".join(out)


def lower(text: str, source: random.Random) -> str:
    """All letters small."""
    return _each(text, str.lower)


def upper(text: str, source: random.Random) -> str:
    """All letters capital."""
    return _each(text, str.upper)


def spaces(text: str, source: random.Random) -> str:
    """A fifth of the spaces, and at least one, twice."""
    may = free(text)
    places = [i for i, letter in enumerate(text) if letter == " " and may[i]]
    twice = set(source.sample(places, max(1, round(SPACE_RATE * len(places))))) if places else set()
    return "".join(letter * 2 if i in twice else letter for i, letter in enumerate(text))


def punctuation(text: str, source: random.Random) -> str:
    """No full stops, commas, question marks and the like."""
    return _each(text, lambda letter: "" if letter in ".,;:?!" else letter)


def _each(text: str, change: Callable[[str], str]) -> str:
    return "".join(change(letter) if may else letter for letter, may in zip(text, free(text), strict=True))


KINDS: dict[str, Callable[[str, random.Random], str]] = {
    "typos": typos,
    "lower": lower,
    "upper": upper,
    "spaces": spaces,
    "punctuation": punctuation,
}


def perturb(text: str, kind: str, seed: int = 0) -> str:
    """A text changed in one of the ways of `KINDS`."""
    return KINDS[kind](text, _source(text, kind, seed))


FORMATS = (
    ("Question", ": ", "\n", "Answer"),
    ("Question", ":\n", "\n\n", "Answer"),
    ("Question", " - ", "\n", "Answer"),
    ("QUESTION", ": ", "\n", "ANSWER"),
    ("Q", ": ", "\n", "A"),
    ("Q", ": ", " ", "A"),
    ("Q", ":\n", "\n\n", "A"),
    ("Problem", ": ", "\n", "Solution"),
    ("", "", "\n", "Answer"),
    ("", "", "", ""),
)
"""Ten prompt formats: a label, what parts it from the question, a gap, a label of the answer. Frozen: a change would
make other figures."""


def body(own: str) -> str:
    """A document's own part of its prompt without the label before the question and the one before the answer."""
    text = re.sub(r"\A\s*[A-Za-z]+(?: [A-Za-z]+)?:\s*", "", own)
    return re.sub(r"\s*\n?[A-Za-z]+(?: [A-Za-z]+)?:\s*\Z", "", text).strip()


def formats(own: str) -> Iterator[str]:
    """The document's part of a prompt in each of the frozen formats."""
    question = body(own)
    for label, separator, gap, reply in FORMATS:
        yield f"{label}{separator}{question}{gap}{reply}{(separator or ': ') if reply else ''}".rstrip()


def orders(own: str, choices: tuple[str, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Prompts that list the choices by letter in each cyclic order, and which choice each letter then stands for."""
    question = body(CHOICE.sub("", own))
    for shift in range(len(choices)):
        order = tuple((place + shift) % len(choices) for place in range(len(choices)))
        listed = "\n".join(f"{LETTERS[place]}. {choices[which].strip()}" for place, which in enumerate(order))
        yield f"Question: {question}\n{listed}\nAnswer:", order
