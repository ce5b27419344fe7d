"""What a plugin imports: the nouns and the two decorators."""

from weighin.harness.plugin import Abstain, Checkpoint, Model, Stage, Suite, stage, suite
from weighin.results.records import Metric, Sample

__all__ = ["Abstain", "Checkpoint", "Metric", "Model", "Sample", "Stage", "Suite", "stage", "suite"]
