"""Looking at a growing number of items: a bound that holds the chance of error over all looks together.

Items must come in an order that was fixed beforehand and owes nothing to the results; a suite's `limit` draws nested
samples by seed, so that the items of one look are among those of the next.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

from weighin.results.errors import WeighinError


def look_alpha(looks: Sequence[int], alpha: float = 0.05) -> float:
    """The one-sided chance of error that each look may take so that all take `alpha`: Pocock's bound.

    Pocock (1977, Biometrika 64:191) for looks of any spacing: the statistics of looks at n_i < n_j items are normal
    with correlation sqrt(n_i / n_j), and the constant c solves P(any Z_i > c) = alpha. For 300, 600 and 1200 items
    c = 2.018; his own 1.992 is for equal steps. Raises WeighinError for looks that do not grow.
    """
    if any(later <= earlier for earlier, later in pairwise(looks)) or min(looks, default=1) < 1:
        raise WeighinError(f"looks must grow, as in 300, 600, 1200 (got {', '.join(map(str, looks))})")
    return _look_alpha(tuple(looks), alpha) if len(looks) > 1 else alpha


@lru_cache
def _look_alpha(looks: tuple[int, ...], alpha: float) -> float:
    from scipy.optimize import brentq
    from scipy.stats import norm

    def excess(critical: float) -> float:
        return _crossing(looks, critical) - alpha

    critical = brentq(excess, norm.isf(alpha), norm.isf(alpha / len(looks)) + 1e-6, xtol=1e-6)
    return float(norm.sf(critical))


def _crossing(looks: tuple[int, ...], critical: float) -> float:
    """P(some look's statistic exceeds `critical`) of a Brownian motion seen at `looks`, by recursive integration
    (Armitage, McPherson & Rowe 1969, J R Stat Soc A 132:235)."""
    import numpy as np
    from scipy.stats import norm

    grid = np.linspace(-8.0, critical, 801)  # the statistic so far, never beyond the bound
    step = grid[1] - grid[0]
    weights = np.full(len(grid), step)
    weights[[0, -1]] = step / 2
    density, crossed = norm.pdf(grid), float(norm.sf(critical))
    for earlier, later in pairwise(looks):
        kept = (earlier / later) ** 0.5
        spread = (1 - earlier / later) ** 0.5
        mass = density * weights
        crossed += float(mass @ norm.sf((critical - kept * grid) / spread))
        density = norm.pdf((grid[:, None] - kept * grid[None, :]) / spread) @ mass / spread
    return crossed


def decided(outcomes: Sequence[str]) -> bool:
    """Whether no gate rule is open any more, or one has failed: either way more items change nothing."""
    return "fail" in outcomes or all(outcome == "pass" for outcome in outcomes)
