"""Numbers and words as plain text, one place for the command line, the page and exports."""

import math

_PREFIXED = {"s", "J", "J/token", "s/token", "W", "V"}
_STEPS = ((1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))
_BYTES = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))
MISSING = "–"


def quantity(value: float | None, unit: str) -> str:
    """A value in its base unit as a reader wants it: 0.412 s as `412 ms`, bytes in binary steps, three digits.

    The unit `1` is not written; None reads as a dash.
    """
    if value is None or math.isnan(value):
        return MISSING
    factor, shown = _scale(value, unit)
    return f"{digits(value / factor)} {shown}".strip()


def interval(value: float | None, low: float | None, high: float | None, unit: str) -> str:
    """A value with its limits, all in the value's own step: `412 [398, 431] ms`; no brackets without limits."""
    if value is None or low is None or high is None or math.isnan(value) or math.isnan(low) or math.isnan(high):
        return quantity(value, unit)
    factor, shown = _scale(value, unit)
    return f"{digits(value / factor)} [{digits(low / factor)}, {digits(high / factor)}] {shown}".strip()


def digits(value: float) -> str:
    """Three significant digits without an exponent from a thousandth up; numbers from a thousand on as whole ones."""
    if not math.isfinite(value):
        return str(value)
    size = abs(float(f"{value:.3g}"))
    if size >= 1e12 or 0 < size < 1e-3:
        return f"{value:.2e}"
    if size >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{2 - math.floor(math.log10(size))}f}" if size else "0"


def _scale(value: float, unit: str) -> tuple[float, str]:
    """What to divide by, and the unit's name after it."""
    size = abs(value)
    if unit in ("1", ""):
        return 1.0, ""
    if unit in ("B", "B/token", "B/s"):
        for step, name in _BYTES:
            if size >= step:
                return float(step), name + unit[1:]
        return 1.0, unit
    if unit in _PREFIXED and size > 0:
        if size >= 1000 and unit.startswith("J"):
            return 1e3, "k" + unit
        for factor, prefix in _STEPS:
            if size >= 0.9995 * factor:
                return factor, prefix + unit
        return _STEPS[-1][0], _STEPS[-1][1] + unit
    return 1.0, unit


def plain(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    for sign in "\\`*_<>[]|":
        text = text.replace(sign, "\\" + sign)
    return " ".join(text.split())
