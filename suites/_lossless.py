"""Whether tokens that were drawn come from the distribution that they ought to come from."""

from collections.abc import Sequence


def chi_square(counts: Sequence[int], probabilities: Sequence[float], least: float = 5.0) -> float:
    """p-value of Pearson's test that `counts` of drawn tokens come from `probabilities`, both by token.

    Tokens expected fewer than `least` times are taken together. Where even together they are expected more rarely,
    their count is tested by itself (Poisson) and the smaller p-value counts twice (Bonferroni): a token that was never
    to come must not hide in a common one's cell. Raises ValueError where fewer than two cells are left.
    """
    from scipy.stats import chi2, poisson

    total = sum(counts)
    expected = [total * probability for probability in probabilities]
    cells = [(mean, count) for mean, count in zip(expected, counts, strict=True) if mean >= least]
    rare = sum(mean for mean in expected if mean < least)
    seen = sum(count for mean, count in zip(expected, counts, strict=True) if mean < least)
    if rare >= least:
        cells.append((rare, seen))
    if len(cells) < 2:
        raise ValueError(f"{total} draws leave fewer than two cells that are expected {least:g} times")
    whole = sum(count for _, count in cells) / sum(mean for mean, _ in cells)
    if whole:
        statistic = sum((count - whole * mean) ** 2 / (whole * mean) for mean, count in cells)
        value = float(chi2.sf(statistic, len(cells) - 1))
    else:  # nothing but rare tokens came, and those tell
        value = 1.0
    if rare >= least or rare == seen == 0:
        return value
    return min(1.0, 2 * min(value, float(poisson.sf(seen - 1, rare))))
