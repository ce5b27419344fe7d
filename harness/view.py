"""The key `front` of a spec: how fronts of its runs are looked at."""

from collections.abc import Collection, Iterator
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from weighin.harness import registry
from weighin.results.errors import WeighinError
from weighin.results.lookup import split_metric


class FrontKey(BaseModel):
    """Tolerances and the hypervolume's reference point by metric; `results.front.View` says what they mean."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    epsilon: dict[str, Annotated[float, Field(ge=0)]] = {}
    reference: dict[str, float] = {}

    def faults(self, suites: Collection[str]) -> Iterator[str]:
        """Names that are no metric of a suite of the spec."""
        for where, names in (("epsilon", self.epsilon), ("reference", self.reference)):
            for name in names:
                try:
                    suite, _ = split_metric(name)
                except WeighinError as error:
                    yield f"front.{where}: {error}"
                    continue
                if suite not in suites:
                    yield f"front.{where}: no suite {suite!r} in this spec. {registry.suggest(suite, suites)}"
