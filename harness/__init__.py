"""What a plugin imports: the nouns, the two decorators and the error that a user may see."""

from weighin.harness.outline import Outline
from weighin.harness.plugin import Abstain, Checkpoint, Model, Stage, Suite, stage, suite
from weighin.harness.runtime import Runtime, Weight
from weighin.results.errors import WeighinError
from weighin.results.records import Metric, Sample, Source

__all__ = [
    "Abstain",
    "Checkpoint",
    "Metric",
    "Model",
    "Outline",
    "Runtime",
    "Sample",
    "Source",
    "Stage",
    "Suite",
    "WeighinError",
    "Weight",
    "stage",
    "suite",
]
