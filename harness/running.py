"""The verb that works: `run` makes what is missing, measures what is not held, judges and shows."""

import argparse
import os
from dataclasses import replace
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from weighin.harness import kv_budget, registry, report
from weighin.harness.spec import Spec, read_spec
from weighin.results.errors import WeighinError
from weighin.results.store import Store

if TYPE_CHECKING:
    from weighin.harness.engine import Engine

Args = argparse.Namespace


def run(args: Args) -> int:
    """Make, measure, keep, show. 0 when all went well, 4 when a stage or a suite failed."""
    from weighin.harness.gating import judged
    from weighin.harness.looks import looks
    from weighin.results.sequential import decided

    console, store, spec = Console(), Store(args.store), read_spec(args.spec)
    if args.scorer:
        spec = replace(spec, scorer=args.scorer, source={**spec.source, "scorer": args.scorer})
    for suite in args.again:
        if suite not in spec.suites:
            raise WeighinError(f"--again: no suite {suite!r} in this spec. {registry.suggest(suite, spec.suites)}")
    if args.checkpoints:
        os.environ["WEIGHIN_CHECKPOINTS"] = args.checkpoints  # of the workers, too
    if args.kv_budget:
        os.environ[kv_budget.NAME] = str(args.kv_budget)
    engine = _engine(args)
    each, place = looks(spec), 0
    while True:
        at, place = each[place], place + 1
        run_id, ok = _weigh(console, store, at, args, engine)
        found = judged(store, at, at.gate, (run_id, None)) if at.gate else []
        gating = [verdict.outcome for verdict in found if verdict.rule.role == "gate"]
        if place == len(each) or not ok or decided(gating):
            break
        console.print(f"Look {place} of {len(each)}, {at.looks[place - 1]} items: not decided, so more are asked.")
    with store.snapshot() as held:
        report.scores(console, held, run_id)
        report.fronts(console, held, run_id)
    if found:
        console.print("\n[bold]gate[/]" + (f" at look {place} of {len(each)}" if len(each) > 1 else ""))
        report.verdicts(console, found)
    failed = "" if ok else "  Some cells failed; their rows say why, `weighin run` tries them again."
    console.print(
        f"\nRun {run_id} is in {escape(str(store.path))}.{failed}\nOpen the page with: weighin board", highlight=False
    )
    return 0 if ok else 4


def _engine(args: Args) -> "Engine":
    if args.engine == "local":
        if args.address:
            raise WeighinError("--address: is of a Ray cluster; add --engine ray")
        from weighin.harness.engine_local import Local

        return Local()
    if registry.missing(["ray"]):
        raise WeighinError("--engine ray needs ray: pip install 'weighin[ray]'")
    from weighin.harness.engine_ray import Ray

    return Ray(args.address)


def _weigh(console: Console, store: Store, spec: Spec, args: Args, engine: "Engine") -> tuple[str, bool]:
    """One run of a spec: its id, and whether all went well."""
    from weighin.harness import builds, checkpoint_url, rooms, worker
    from weighin.harness.plan import job_names, make_plan
    from weighin.harness.progress import Display
    from weighin.harness.run import weigh

    found = make_plan(spec, store, again=args.again)
    assert found is not None, "a plan that may download always has its base"
    further = builds.plans(found, store, args.replicates)
    jobs = [name for each in (found, *further) for name in job_names(each)]
    if jobs and args.engine == "local":
        worker.warm_up(found.needs())
    elif jobs:
        for root in (found.base, *found.elsewhere.values()):  # what nobody makes, other machines cannot make either
            checkpoint_url.push(root.path, root.key)
    beside = rooms.beside(spec.suites) if args.engine == "local" else {}
    with Display(console, jobs, store.costs(), beside) as display:
        return weigh(found, store, display, further, engine)
