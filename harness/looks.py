"""A spec at each of its looks: the same grid with a growing `limit` in the suites that the gate asks about."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from weighin.harness.spec import Spec
from weighin.results.errors import WeighinError
from weighin.results.sequential import look_alpha

LOOK = "look"
"""Where a run's kept spec says which look it was, counted from 1."""


def looks(spec: Spec) -> list[Spec]:
    """The spec at each look; itself alone where it has none. Raises WeighinError where no suite can be limited."""
    if not spec.looks:
        return [spec]
    asked = {rule.metric.split(".", 1)[0] for rule in spec.gate}
    grow = sorted(name for name in asked if "limit" in spec.suites[name])
    if not grow:
        raise WeighinError(
            f"gate.looks: none of {', '.join(sorted(asked)) or 'no suite'} has a `limit` that could grow"
        )
    look_alpha(spec.looks)
    return [_at(spec, grow, place, limit) for place, limit in enumerate(spec.looks, 1)]


def _at(spec: Spec, grow: list[str], place: int, limit: int) -> Spec:
    suites = {name: {**params, "limit": limit} if name in grow else params for name, params in spec.suites.items()}
    return dataclasses.replace(spec, suites=suites, source={**spec.source, LOOK: place})


def look_of(kept: Mapping[str, Any]) -> int:
    """Which look a run's kept spec was."""
    return int(kept.get(LOOK, 1))
