"""Whether a confidence is worth what it says: pure functions of probabilities and outcomes.

Arrays are float64 of one value a question: `confidence` the probability of the answer given, `right` 1 or 0.
"""

import math
from typing import Any

BINS = 15
FEWEST = 20
"""Below this many questions a calibration error says nothing."""


def softmax(scores: Any) -> list[float]:
    """Probabilities of choices from their log-likelihoods, nats."""
    most = max(scores)
    weights = [math.exp(score - most) for score in scores]
    return [weight / sum(weights) for weight in weights]


def brier(probabilities: list[float], gold: int) -> float:
    """Sum over choices of (p - y)^2: 0 is certain and right, 2 certain and wrong (Brier 1950)."""
    return sum((p - (place == gold)) ** 2 for place, p in enumerate(probabilities))


def bins(confidence: Any) -> Any:
    """The number of each question's bin: `BINS` bins of equal mass by confidence, at least 10 questions in each."""
    import numpy as np

    count = max(1, min(BINS, len(confidence) // 10))
    ranks = np.argsort(np.argsort(confidence, kind="stable"), kind="stable")
    return ranks * count // len(confidence)


def squared_error(confidence: Any, right: Any, bin_: Any) -> float:
    """Debiased squared calibration error: the sum over bins of w [(y - p)^2 - y (1 - y) / (n - 1)], with y and p the
    means of a bin of n questions and w its share of them (Kumar et al. 2019, arXiv 1909.10155, definition 5.1).

    0 on average for a calibrated model at any n, so it may come out negative. Bins of one question are left out.
    """
    import numpy as np

    total = weight = 0.0
    for each in np.unique(bin_):
        mine = bin_ == each
        n = int(mine.sum())
        if n > 1:
            y, p = float(right[mine].mean()), float(confidence[mine].mean())
            total += n * ((y - p) ** 2 - y * (1 - y) / (n - 1))
            weight += n
    return total / weight if weight else float("nan")


def naive_ece(confidence: Any, right: Any) -> float:
    """Expected calibration error over 15 bins of equal width (Guo et al. 2017, arXiv 1706.04599): biased upwards,
    the more the fewer questions there are."""
    import numpy as np

    bin_ = np.minimum((np.asarray(confidence) * BINS).astype(int), BINS - 1)
    gaps = [(bin_ == b).mean() * abs(right[bin_ == b].mean() - confidence[bin_ == b].mean()) for b in np.unique(bin_)]
    return float(sum(gaps))


def expected_ece(confidence: Any, repetitions: int = 200, seed: int = 0) -> float:
    """The naive ECE that a calibrated model with these confidences would have on average."""
    import numpy as np

    rng = np.random.default_rng(seed)
    draws = rng.random((repetitions, len(confidence))) < np.asarray(confidence)
    return float(np.mean([naive_ece(confidence, draw.astype(float)) for draw in draws]))


def ranked_errors(confidence: Any, right: Any) -> Any:
    """1 - right from the most confident down; questions of one confidence share their mean, whatever their order."""
    import numpy as np

    _, level = np.unique(-np.asarray(confidence), return_inverse=True)
    shared = np.bincount(level, weights=1 - np.asarray(right)) / np.bincount(level)
    return np.repeat(shared, np.bincount(level))


def aurc(confidence: Any, right: Any) -> float:
    """Area under the risk-coverage curve: the mean over i of the error rate among the i most confident (Geifman et
    al. 2019, arXiv 1805.08206)."""
    import numpy as np

    errors = ranked_errors(confidence, right)
    return float((np.cumsum(errors) / np.arange(1, len(errors) + 1)).mean())


def excess_aurc(confidence: Any, right: Any) -> float:
    """E-AURC: the area less that of a ranking that puts every error last; 0 is a perfect ranking (same paper)."""
    import numpy as np

    return aurc(confidence, right) - aurc(np.asarray(right, dtype=float), right)


def accuracy_at(coverage: float, confidence: Any, right: Any) -> float:
    """Accuracy among the most confident share of questions."""
    errors = ranked_errors(confidence, right)
    return 1.0 - float(errors[: math.ceil(coverage * len(errors) - 1e-9)].mean())
