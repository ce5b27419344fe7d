"""Planted truths: what must be recovered before a suite is believed. `weighin calibrate` tries them on this machine.

A suite's plants stand beside it, in `suites/_planted_SUITE.py`; a package of one's own that brings a suite in a module
`my_suite` brings its plants in `_planted_my_suite` of the same package. A plant is a function that makes something
whose true value is known, measures it with the suite's own code, and yields what came out.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

Sign = Literal["=", "≤", "≥", "in"]


@dataclass(frozen=True)
class Target:
    """What a recovered value must be: `=` within `tolerance` of `value`, `≤` or `≥` it, or `in` value ± tolerance."""

    sign: Sign
    value: float
    tolerance: float = 0.0

    def met(self, recovered: float | None) -> bool:
        """Whether a value is what it must be; an unknown one never is."""
        if recovered is None or recovered != recovered:
            return False
        if self.sign == "≤":
            return recovered <= self.value
        if self.sign == "≥":
            return recovered >= self.value
        return abs(recovered - self.value) <= self.tolerance

    def __str__(self) -> str:
        spread = f" ± {self.tolerance:.2g}" if self.tolerance else ""
        return f"{'' if self.sign == 'in' else self.sign + ' '}{self.value:.4g}{spread}"


@dataclass(frozen=True)
class Recovered:
    """What an instrument made of one planted value.

    `instrument` is what was tried ("exposure"), `plant` what was planted ("64 copies"), `planted` its true value where
    that is a number of the same unit. `low` and `high` bound `value`; without them it is exact or has no interval.
    `reason` says why there is no value.
    """

    instrument: str
    plant: str
    value: float | None
    target: Target
    unit: str = "1"
    planted: float | None = None
    low: float | None = None
    high: float | None = None
    reason: str | None = None

    @property
    def passed(self) -> bool:
        return self.target.met(self.value)


@dataclass(frozen=True)
class Plant:
    """A planted truth. A `slow` one takes minutes; `needs` names the packages it imports."""

    call: Callable[[], Iterator[Recovered]]
    slow: bool = False
    needs: tuple[str, ...] = field(default=())

    @property
    def name(self) -> str:
        return self.call.__name__

    def __call__(self) -> Iterator[Recovered]:
        return self.call()


def plant(*, slow: bool = False, needs: tuple[str, ...] = ()) -> Callable[[Callable[[], Iterator[Recovered]]], Plant]:
    """Make a plant of a generator without parameters. Its header line says what it plants."""

    def wrap(call: Callable[[], Iterator[Recovered]]) -> Plant:
        return Plant(call, slow, needs)

    return wrap
