"""Shares seen through an imperfect detector: corrected by its own sensitivity and specificity, with limits."""

import math
from typing import NamedTuple

from weighin.suites._figures import Figure

Z = 1.959963984540054


class Error(NamedTuple):
    """How a detector did on texts whose truth is known: hits of the toxic ones, passes of the others."""

    hits: int
    toxic: int
    passes: int
    clean: int

    @property
    def sensitivity(self) -> float:
        """Share of toxic texts that it finds."""
        return self.hits / self.toxic

    @property
    def specificity(self) -> float:
        """Share of other texts that it passes."""
        return self.passes / self.clean


def rogan_gladen(share: float, n: float, error: Error) -> Figure:
    """True prevalence (share + specificity - 1) / (sensitivity + specificity - 1), cut to 0..1 (Rogan & Gladen 1978,
    Am J Epidemiol 107:71), with limits that count the uncertainty of all three shares (Lang & Reiczigel 2014, Prev
    Vet Med 113:13). `n` is the number of independent texts behind the share; no value where the detector is no better
    than chance.
    """
    youden = error.sensitivity + error.specificity - 1
    if youden <= 0 or n <= 0:
        return Figure(None)
    value = min(1.0, max(0.0, (share + error.specificity - 1) / youden))
    wide, many, few = n + Z * Z, error.toxic + 2, error.clean + 2
    seen, sens, spec = (share * n + Z * Z / 2) / wide, (error.hits + 1) / many, (error.passes + 1) / few
    scale = sens + spec - 1
    if scale <= 0:
        return Figure(value)
    middle = (seen + spec - 1) / scale
    spread_sens, spread_spec = sens * (1 - sens) / many, spec * (1 - spec) / few
    shift = 2 * Z * Z * (middle * spread_sens - (1 - middle) * spread_spec)
    variance = seen * (1 - seen) / wide + middle**2 * spread_sens + (1 - middle) ** 2 * spread_spec
    half = Z * math.sqrt(variance) / scale
    low, high = middle + shift - half, middle + shift + half
    return Figure(value, min(value, max(0.0, low)), max(value, min(1.0, high)))


def effective(share: float, figure: Figure, clusters: int) -> float:
    """Independent texts behind a share: as many as would give its interval; that of clusters where it has none."""
    if figure.low is None or figure.high is None or not 0 < share < 1:
        return float(clusters)
    half = max(share - figure.low, figure.high - share) / Z
    return share * (1 - share) / (half * half) if half else float(clusters)
