"""What is done inside a worker process: run a stage, establish an identity, run a suite."""

import inspect
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from weighin.harness import registry
from weighin.harness.endpoint import settled
from weighin.harness.endpoint_model import EndpointModel
from weighin.harness.meter import Meter
from weighin.harness.model import Loading, TransformersModel
from weighin.harness.plugin import Abstain, Checkpoint, Suite
from weighin.results.errors import WeighinError
from weighin.results.records import Sample


def make(
    stage: str, params: Mapping[str, Any], parent: Checkpoint, out: Path, others: Mapping[str, list[Checkpoint]]
) -> dict[str, Any]:
    """Run a stage into the empty directory `out`; `others` are the checkpoints that its parameters name.

    Returns the energy that took, J, and its source, both None where nothing can measure them. Raises WeighinError when
    it wrote nothing.
    """
    _seed(params)
    given = _typed("stage", stage, params)
    for name, found in others.items():
        argument = name if name in given else f"{name}_"
        given[argument] = found if isinstance(given[argument], list) else found[0]
    spent: dict[str, Any] = {"joules": None, "joules_source": None}
    if registry.missing(["codecarbon"]):
        registry.stage(stage)(parent, out, **given)
    else:
        _, energy = Meter().measure(lambda: registry.stage(stage)(parent, out, **given))
        spent = {"joules": energy.joules, "joules_source": energy.source}
    if not any(out.iterdir()):
        raise WeighinError(f"stage {stage} wrote nothing")
    return spent


def identify(checkpoint: Checkpoint, relatives: Mapping[str, Checkpoint], loading: Loading) -> dict[str, Any]:
    """The identity of a checkpoint, reloaded from disk."""
    model = TransformersModel(checkpoint, relatives, loading, registry.opened)
    if model.runtime:
        from weighin.harness.identity_runtime import identify as establish
    else:
        from weighin.harness.identity import identify as establish
    return establish(model)


def measure(
    suite: str, params: Mapping[str, Any], checkpoint: Checkpoint, relatives: Mapping[str, Checkpoint], loading: Loading
) -> list[Sample]:
    """Run a suite on a checkpoint, reloaded from disk: its samples, each with its metric.

    Raises Abstain when the suite does, and WeighinError when it yields nothing or two samples for one place.
    """
    _seed(params)
    plugin = registry.suite(suite)
    if absent := registry.missing(plugin.needs):  # ours was looked at when the spec was read
        where = os.environ.get("WEIGHIN_ENVIRONMENT", "this one")
        raise Abstain(f"{suite} needs {', '.join(absent)}, which the environment {where} does not have")
    model = _model(checkpoint, relatives, loading)
    samples = list(_named(plugin, plugin(model, **_typed("suite", suite, params)), suite))
    if isinstance(model, EndpointModel):
        model.still("measured")
    if not samples:
        raise WeighinError(f"suite {suite} yielded no sample")
    places = {(s.metric.name if s.metric else "", s.item, s.rep) for s in samples}
    if len(places) != len(samples):
        twice = [k for k, g in itertools.groupby(sorted((s.item, s.rep) for s in samples)) if len(list(g)) > 1]
        raise WeighinError(f"suite {suite} yielded two samples for one metric, item and repetition: {twice[:1]}")
    return list(_told(samples, model))


def _model(checkpoint: Checkpoint, relatives: Mapping[str, Checkpoint], loading: Loading) -> Any:
    """The model of a checkpoint: behind a server, or in this process."""
    if settled(checkpoint.path):
        return EndpointModel(checkpoint, relatives, loading)
    return TransformersModel(checkpoint, relatives, loading, registry.opened)


def _told(samples: Iterable[Sample], model: Any) -> Iterator[Sample]:
    """Each metric's first sample says where the model was not scored in the way that was asked for, and why."""
    said = model.scoring.reason if model.scoring else ""
    seen: set[str] = set()
    for sample in samples:
        name = sample.metric.name if sample.metric else ""
        first = said and name not in seen
        seen.add(name)
        detail = {**sample.detail, "scorer": f"{model.scoring.mode}: {said}"} if first else sample.detail
        yield replace(sample, detail=detail) if first else sample


def _named(plugin: Suite[...], samples: Iterator[Sample], suite: str) -> Iterator[Sample]:
    """A sample without a metric is the suite's only one."""
    for sample in samples:
        if sample.metric is not None:
            yield sample
        elif len(plugin.metrics) == 1:
            yield replace(sample, metric=plugin.metrics[0])
        else:
            raise WeighinError(f"suite {suite} declares {len(plugin.metrics)} metrics: each sample must name its own")


def _typed(kind: registry.Kind, name: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as the plugin's own types again; in a key they are plain JSON."""
    plugin = registry.load(kind, name)
    checked = plugin.parameters.model_validate(dict(params))
    arguments = (p.name for p in inspect.signature(plugin.call).parameters.values() if p.kind is p.KEYWORD_ONLY)
    return {argument: getattr(checked, argument.rstrip("_")) for argument in arguments}


def _seed(params: Mapping[str, Any]) -> None:
    import random

    import numpy
    import torch

    seed = int(params.get("seed", 0))
    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)
