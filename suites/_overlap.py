"""Overlap of texts with training text: which tokens stand there in a run of n, by rolling hashes of token ids.

13-grams as in GPT-3's decontamination (Brown et al., arXiv 2005.14165, appendix C), covered tokens as in Llama 2
(Touvron et al., arXiv 2307.09288, appendix A.6), both with the model's own tokens.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

LONG, SHORT = 13, 8
"""The two lengths of runs, tokens."""
_BASE = np.uint64(0x9E3779B97F4A7C15)


class Overlap(NamedTuple):
    """Shares of a text's tokens in runs of 13 and of 8 that stand in the training text, and the longest stretch of it,
    tokens, of which every run of 8 does."""

    long: float
    short: float
    longest: int


def overlaps(rows: Sequence[Sequence[int]], corpus: Iterable[Sequence[int]]) -> list[Overlap]:
    """Overlap of each row of token ids with the documents of a corpus; no run reaches over a document's end."""
    sought = {n: np.unique(np.concatenate([_hashes(row, n) for row in rows])) for n in (LONG, SHORT)}
    met = {n: np.zeros(len(hashes), dtype=bool) for n, hashes in sought.items()}
    for document in corpus:
        for n, hashes in sought.items():
            if len(hashes):
                found = _hashes(document, n)
                place = np.searchsorted(hashes, found).clip(max=len(hashes) - 1)
                met[n][place[hashes[place] == found]] = True
    return [_overlap(row, {n: (sought[n], met[n]) for n in sought}) for row in rows]


def _overlap(row: Sequence[int], known: dict[int, tuple[Any, Any]]) -> Overlap:
    covered, longest = {}, 0
    for n, (hashes, met) in known.items():
        starts = met[np.searchsorted(hashes, _hashes(row, n))] if len(row) >= n else np.zeros(0, dtype=bool)
        mask = np.zeros(len(row), dtype=bool)
        for start in np.flatnonzero(starts):
            mask[start : start + n] = True
        covered[n] = mask
        if n == SHORT:
            longest = _longest(starts)
    size = max(len(row), 1)
    shares = {n: float(mask.sum()) / size for n, mask in covered.items()}
    return Overlap(shares[LONG], shares[SHORT], longest + SHORT - 1 if longest else 0)


def _longest(flags: Any) -> int:
    """Length of the longest run of True."""
    best = run = 0
    for flag in flags:
        run = run + 1 if flag else 0
        best = max(best, run)
    return best


def _hashes(row: Sequence[int], n: int) -> Any:
    """64-bit hashes (len(row) − n + 1) of every run of n tokens: a polynomial modulo 2^64, stirred."""
    ids = np.asarray(row, dtype=np.uint64) + np.uint64(1)
    if len(ids) < n:
        return np.zeros(0, dtype=np.uint64)
    value = np.zeros(len(ids) - n + 1, dtype=np.uint64)
    for place in range(n):
        value = value * _BASE + ids[place : len(ids) - n + 1 + place]
        value ^= value >> np.uint64(29)
    return value
