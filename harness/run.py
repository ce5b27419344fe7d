"""Carry out a plan: make what is missing, weigh what is not held, keep each result at once.

Every result is in the store before the next job begins, so whatever ends the run loses the job in flight and nothing
else; the next run goes on from there. A stage or suite that fails marks its own cells and the rest goes on.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from weighin.harness import checkpoints, jobs, keys, machine, making, registry, rooms, worker
from weighin.harness.chain import Link
from weighin.harness.engine import Engine, Lost, Runner, Task, Wants
from weighin.harness.engine_local import Local
from weighin.harness.model import Loading
from weighin.harness.plan import Cell, Plan
from weighin.harness.plugin import Checkpoint
from weighin.harness.progress import Display
from weighin.results.rows import BuildRow, EvaluationRow, IdentityRow, RunRow, VariantRow
from weighin.results.store import Store
from weighin.results.unfinished import cut_short


def weigh(
    plan: Plan, store: Store, display: Display, builds: Sequence[Plan] = (), engine: Engine | None = None
) -> tuple[str, bool]:
    """Carry out a plan, then its further builds. Returns the run's id and whether all that was tried went well."""
    run = Run(plan, store, display, engine)
    run.begin()
    runs = [run, *(Run(build, store, display, run.engine) for build in builds)]
    for number, each in enumerate(runs):
        each.run_id, each.build = run.run_id, number
    try:
        run.engine.each([task for each in runs for task in each.tasks()])
    except KeyboardInterrupt:
        cut_short(store, run.run_id, "stopped by hand")
        raise
    run.ok = all(each.ok for each in runs)
    return run.run_id, run.end()


class Run:
    """One call of `weighin run`: its id, what failed so far, and where its logs go."""

    def __init__(self, plan: Plan, store: Store, display: Display, engine: Engine | None = None) -> None:
        self.engine = engine or Local()
        self.plan = plan
        self.store = store
        self.display = display
        self.run_id = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{uuid4().hex[:4]}"
        self.here = machine.machine_key()
        self.loading = Loading(plan.spec.base.dtype, tuple(plan.spec.base.allow), plan.spec.scorer)
        self.broken: dict[str, str] = {}
        """Why a checkpoint could not be made, by its key."""
        self.fresh: dict[str, str] = {}
        """Evaluations made in this run, by their keys."""
        self.kept: set[str] = set()
        """Checkpoints that the store knows of."""
        self.ok = True
        self.build = 0
        """Which build of the recipes this is; only the first one's cells are the run's grid."""

    def begin(self) -> None:
        """Keep the run, its labels and its grid before anything is done."""
        bases = [(self.plan.base, self.plan.spec.base.model_dump())]
        for label, model in self.plan.spec.roots.items():
            bases.append((self.plan.elsewhere[self.plan.chains[label][0].root], {"model": model}))
        run = RunRow(
            self.run_id, self.plan.spec.source, self.plan.spec.name, machine.commit(), machine.packages(), self.here,
            datetime.now(UTC),
        )  # fmt: skip
        held = [(cell.label, cell.suite, cell.held) for cell in self.plan.cells if cell.held]
        with self.store.together() as store:
            store.add_machine(machine.row())
            for base, params in bases:
                store.add_variant(VariantRow(base.key, None, base.key, None, params, 0, datetime.now(UTC)))
            store.start_run(
                run,
                [(label, self.plan.variant(label)) for label in self.plan.chains],
                [(cell.label, cell.suite) for cell in self.plan.cells],
            )
            store.reuse(self.run_id, held)
            for link in self._unknown(*self.plan.chains.values()):
                self._remember(link, store)

    def end(self) -> bool:
        """Keep how the run ended."""
        self.store.end_run(self.run_id, "ok" if self.ok else "failed")
        return self.ok

    def tasks(self) -> list[Task]:
        """The steps of the run: for each variant make what it lacks, establish what it is, weigh it.

        A name that comes again, as that of a checkpoint which several variants stand on, is the same step.
        """
        return [task for label in self.plan.chains for task in self._tasks(label)]

    def _tasks(self, label: str) -> Iterator[Task]:
        ours = {link.key for link in self.plan.chains[label]}
        makes = [link for link in self.plan.to_make() if link.key in ours]
        ready, weighed = f"what {label} is, build {self.build}", self._cell if not self.build else self._another
        for link in makes:
            yield Task(link.key, partial(self._make, link), link.needed)
        yield Task(ready, partial(self._establish, label), tuple(link.key for link in makes))
        for cell in self.plan.cells:
            if cell.label == label:
                first = next(c for c in self.plan.cells if c.evaluation_key == cell.evaluation_key)
                after = (ready,) if first is cell else (ready, self._named(first))
                yield Task(self._named(cell), partial(weighed, cell), after, registry.suite(cell.suite).alone)

    def _named(self, cell: Cell) -> str:
        return f"{cell.label} {cell.suite}, build {self.build}"

    def _establish(self, label: str) -> None:
        """Keep what is known of a variant's checkpoints, and look at the last where nobody has on this machine."""
        if unknown := list(self._unknown(self.plan.chains[label])):  # made by others since, or for a further build
            with self.store.together() as store:
                for link in unknown:
                    self._remember(link, store)
        key = self.plan.variant(label)
        if key in self.plan.unidentified and key not in self.broken:
            self._identify(label, key)

    # -- checkpoints --------------------------------------------------------------------------------------------

    def _make(self, link: Link) -> None:
        if link.key in self.broken or link.made:  # another label's chain has come to it before
            return
        for key in link.needed:
            if key in self.broken:
                self.broken[link.key] = self.broken[key]
                return
        self.display.start(f"make {link.step.where}")
        log = self._log(f"make-{keys.short(link.key)[:12]}-{link.step.stage}")
        others = {name: [self._checkpoint(key) for key in several] for name, several in link.others.items()}
        parent, relatives = self._checkpoint(link.parent), self._relatives([link])
        order = making.Order(link, parent, others, relatives, self.loading, self.here, log)
        built = self._do(
            making.Build(order), rooms.of_stage([parent, *(c for several in others.values() for c in several)])
        )
        if isinstance(built, worker.Outcome):
            built = making.Built(built.seconds, built.reason)
        if built.reason:
            self._fail(link, f"stage {link.step.stage} failed: {built.reason}", built.seconds, log)
            return
        self._remember(link, self.store)
        self.display.finish(link.step.stage, "ok", built.seconds, _summary(built.identity or {}))

    def _fail(self, link: Link, reason: str, seconds: float, log: Path) -> None:
        self.ok = False
        self.broken[link.key] = f"{reason} (log: {log})"
        self.display.finish(link.step.stage, "failed", seconds, f"{reason} (log: {log})")

    def _unknown(self, *chains: Sequence[Link]) -> Iterator[Link]:
        return (link for chain in chains for link in chain if link.key not in self.kept and link.made)

    def _remember(self, link: Link, store: Store) -> None:
        """Keep a checkpoint that is on disk in the store too: its making, and its identity where it was made here."""
        self.kept.add(link.key)
        made = checkpoints.known(link.key)
        store.add_variant(
            VariantRow(
                link.key, link.parent, link.root, link.step.stage, link.step.params, link.depth,
                datetime.fromisoformat(made["made_at"]), made["seconds"], made["peak_bytes"],
                made["identity"]["machine"], made.get("joules"), made.get("joules_source"), link.others,
            )
        )  # fmt: skip
        identity = dict(made["identity"])
        if identity.pop("machine") == self.here and store.identity(link.key, self.here) is None:
            store.add_identity(IdentityRow(link.key, self.here, **identity))

    def _identify(self, label: str, key: str) -> None:
        """Establish what a checkpoint from elsewhere is on this machine: the base, or one made on another machine."""
        if self.store.identity(key, self.here) is not None:
            return
        self.display.start(f"identify {label}")
        found = self._look(self._checkpoint(key), self.plan.chains[label], self._log(f"identify-{label}"))
        if found.status != "ok":
            self.ok = False
            self.broken[key] = f"cannot be loaded: {found.reason}"
            self.display.finish("identify", "failed", found.seconds, self.broken[key])
            return
        self.store.add_identity(IdentityRow(key, self.here, **found.value))
        self.display.finish("identify", "ok", found.seconds, _summary(found.value))

    def _look(self, checkpoint: Checkpoint, chain: Sequence[Link], log: Path) -> worker.Outcome:
        relatives = self._relatives(chain)
        arguments = {"checkpoint": checkpoint, "relatives": relatives, "loading": self.loading}
        environment = chain[-1].environment if chain else ""
        return self._run(worker.Job(jobs.identify, arguments, log, environment), rooms.of_look(checkpoint))

    def _checkpoint(self, key: str) -> Checkpoint:
        if key == self.plan.base.key:
            return self.plan.base
        return self.plan.elsewhere.get(key) or checkpoints.present(Checkpoint(checkpoints.place(key), key))

    def _relatives(self, chain: Sequence[Link]) -> dict[str, Checkpoint]:
        """Those ancestors of a chain's last checkpoint that are on disk; a base has none."""
        named = {"parent": chain[-1].parent, "root": chain[-1].root} if chain else {}
        found = {which: self._checkpoint(key) for which, key in named.items() if key}
        return {which: checkpoint for which, checkpoint in found.items() if checkpoint.path.is_dir()}

    # -- cells --------------------------------------------------------------------------------------------------

    def _cell(self, cell: Cell) -> None:
        place = (self.run_id, cell.label, cell.suite)
        if cell.held:
            return
        if cell.evaluation_key in self.fresh:  # another label of the same checkpoint
            self.store.reuse(self.run_id, [(cell.label, cell.suite, self.fresh[cell.evaluation_key])])
            return
        if cell.variant in self.broken:
            self.store.set_cell(*place, status="failed", reason=self.broken[cell.variant])
            return
        log = self._log(f"{cell.label}-{cell.suite}")
        self.store.set_cell(*place, status="running", log=str(log))
        began = datetime.now(UTC)
        self._keep(cell, self._measured(cell, log), began)

    def _another(self, cell: Cell) -> None:
        """A further build under a suite, kept with the variant that it is a build of."""
        evaluation, why = cell.held or self.fresh.get(cell.evaluation_key), self.broken.get(cell.variant)
        if evaluation is None and why is None:
            evaluation, why = self.beside(cell)
            if why is None:
                self.fresh[cell.evaluation_key] = evaluation
        row = BuildRow(self.run_id, cell.label, self.build, cell.suite, cell.variant, evaluation, why)
        self.store.add_build(row)

    def beside(self, cell: Cell) -> tuple[str, str | None]:
        """Measure a cell, kept beside the grid: the evaluation's id, and why it has no result."""
        began = datetime.now(UTC)
        outcome = self._measured(cell, self._log(f"{cell.label}-{cell.suite}-{uuid4().hex[:4]}"))
        evaluation = self._evaluation(cell, outcome, began)
        self.store.add_evaluation(evaluation, outcome.value or [])
        self.ok = self.ok and outcome.status != "failed"
        self.display.finish(cell.suite, outcome.status, outcome.seconds, outcome.reason or "")
        return evaluation.evaluation_id, None if outcome.status == "ok" else outcome.reason or outcome.status

    def _measured(self, cell: Cell, log: Path) -> worker.Outcome:
        self.display.start(f"{cell.label} · {cell.suite}")
        chain, checkpoint = self.plan.chains[cell.label], self._checkpoint(cell.variant)
        relatives = self._relatives(chain)
        arguments = {
            "suite": cell.suite,
            "params": cell.params,
            "checkpoint": checkpoint,
            "relatives": relatives,
            "loading": self.loading,
        }
        job = worker.Job(jobs.measure, arguments, log, cell.environment)
        return self._run(job, rooms.of_cell(checkpoint, relatives.values(), cell.suite))

    def _evaluation(self, cell: Cell, outcome: worker.Outcome, began: datetime) -> EvaluationRow:
        return EvaluationRow(
            uuid4().hex, cell.evaluation_key, cell.variant, cell.suite, cell.params, cell.protocol, self.here, began,
            outcome.seconds, outcome.status, outcome.reason,
        )  # fmt: skip

    def _keep(self, cell: Cell, outcome: worker.Outcome, began: datetime) -> None:
        evaluation = self._evaluation(cell, outcome, began)
        declared = registry.suite(cell.suite).metrics if outcome.status == "ok" else ()
        place = (self.run_id, cell.label, cell.suite)
        self.store.add_evaluation(evaluation, outcome.value or [], place, declared=declared)
        if outcome.status == "failed":
            self.ok = False
        else:
            self.fresh[cell.evaluation_key] = evaluation.evaluation_id
        self.display.finish(cell.suite, outcome.status, outcome.seconds, outcome.reason or "")

    def _run(self, job: worker.Job, wants: Wants) -> worker.Outcome:
        outcome = self._do(making.Run(job), wants)
        assert isinstance(outcome, worker.Outcome)
        return outcome

    def _do(self, work: Callable[[Runner], Any], wants: Wants) -> Any:
        """What the engine says of a piece of work; a failure where the machines were lost that tried it."""
        try:
            return self.engine.do(work, wants, self.display.progress)
        except Lost as lost:
            return worker.Outcome("failed", reason=str(lost))

    def _log(self, name: str) -> Path:
        safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
        return checkpoints.home() / "logs" / self.run_id / f"{safe}.log"


def _summary(identity: Mapping[str, Any]) -> str:
    distance = identity["distance"]
    apart = f", {distance:.2g} from its parent" if distance is not None else ""
    return f"{identity['form']}, {identity['disk_bytes'] / 2**20:.1f} MiB on disk{apart}"
