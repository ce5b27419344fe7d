"""Blind baselines: how well two sets of texts are told apart by classifiers that never asked the model.

Where they succeed, a membership score may have seen the same difference of style, topic or date, and says nothing about
training (Das, Zhang & Tramèr, arXiv 2406.16201; Meeus et al., arXiv 2406.17975).
"""

import zlib
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from weighin.suites._membership import Estimate, Floats, delong

FOLDS = 5
DEPENDENT = 2.0
"""How many times larger cross-validation makes the variance: a chance difference between the halves of a set helps or
hurts in every fold alike, so that the folds tell hardly more than one half tried on the other (Bengio & Grandvalet
2004, JMLR 5:1089: there is no unbiased estimate). The planted pairs that nothing tells apart check it."""
LEAST = 2 * FOLDS
"""Fewest texts a set for a classifier to be fitted and tried."""


class Blind(NamedTuple):
    """The better of the baselines: its name, its AUROC, and whether it tells the sets apart (lower limit above .5)."""

    name: str
    auroc: Estimate

    @property
    def separates(self) -> bool:
        """An AUROC below .5 tells nothing: the classifiers are tried on texts they were not fitted to."""
        return self.auroc.low > 0.5


def blind(members: Sequence[str], nonmembers: Sequence[str], seed: int = 0) -> Blind:
    """The best blind baseline, cross-validated; each interval is at 97.5 %, since there are two to choose from."""
    texts = [*members, *nonmembers]
    labels = np.array([1] * len(members) + [0] * len(nonmembers))
    found = [
        Blind(name, _tried(classifier, given, labels, seed))
        for name, classifier, given in (
            ("bag of words", _words(), np.array(texts, dtype=object)),
            ("length, repetition and compressibility", _shape(), np.array([features(text) for text in texts])),
        )
    ]
    return max(found, key=lambda each: each.auroc.low)


def features(text: str) -> Floats:
    """A text's shape: lengths, repetition, compressibility, and the shares of kinds of characters."""
    words = text.split()
    size, count = max(len(text), 1), max(len(words), 1)
    squeezed = len(zlib.compress(text.encode("utf-8")))
    pairs = Counter(pairwise(words))
    kinds = (str.isdigit, str.isupper, str.isspace, lambda letter: not letter.isalnum() and not letter.isspace())
    shares = [sum(map(kind, text)) / size for kind in kinds]
    repeated = sum(pairs.values()) - len(pairs)
    return np.array([
        len(text), count, sum(map(len, words)) / count, len(set(words)) / count, repeated / count,
        squeezed / size, squeezed, text.count("\n"), text.count(". "), text.count(","), *shares,
    ], dtype=np.float64)  # fmt: skip


def _words() -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    split = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\w+|[^\w\s]", sublinear_tf=True)
    return make_pipeline(split, LogisticRegression(max_iter=1000))


def _shape() -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    # A set may lie between the extremes of the other: squares beside the figures themselves.
    squared = FunctionTransformer(lambda given: np.hstack([given, given**2]))
    return make_pipeline(StandardScaler(), squared, LogisticRegression(C=0.1, max_iter=1000))


def _tried(classifier: Any, given: Any, labels: Any, seed: int) -> Estimate:
    """AUROC of what the classifier says of texts it was not fitted to."""
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    said = cross_val_predict(classifier, given, labels, cv=folds, method="decision_function")
    return delong(said[labels == 1], said[labels == 0], 0.975, DEPENDENT)
