"""Carry out a plan: make what is missing, weigh what is not held, keep each result at once.

Every result is in the store before the next job begins, so whatever ends the run loses the job in flight and nothing
else; the next run goes on from there. A stage or suite that fails marks its own cells and the rest goes on.
"""

import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from weighin.harness import checkpoints, jobs, keys, machine, registry, worker
from weighin.harness.chain import Link
from weighin.harness.model import Loading
from weighin.harness.plan import Cell, Plan
from weighin.harness.plugin import Checkpoint
from weighin.harness.progress import Display
from weighin.results.rows import BuildRow, EvaluationRow, IdentityRow, RunRow, VariantRow
from weighin.results.store import Store


def weigh(plan: Plan, store: Store, display: Display, builds: Sequence[Plan] = ()) -> tuple[str, bool]:
    """Carry out a plan, then its further builds. Returns the run's id and whether all that was tried went well."""
    run = Run(plan, store, display)
    run.begin()
    for label in plan.chains:
        run.variant(label)
    for number, build in enumerate(builds, 1):
        again = Run(build, store, display)
        again.run_id = run.run_id
        for label in build.chains:
            _build(again, label, number)
        run.ok = run.ok and again.ok
    return run.run_id, run.end()


def _build(run: "Run", label: str, number: int) -> None:
    """Make a further build of a variant and weigh it, unless the store holds its results."""
    run.made(label)
    key = run.plan.variant(label)
    for cell in (cell for cell in run.plan.cells if cell.label == label):
        evaluation, why = cell.held, run.broken.get(key)
        if evaluation is None and why is None:
            evaluation, why = run.beside(cell)
        run.store.add_build(BuildRow(run.run_id, label, number, cell.suite, key, evaluation, why))


def job_names(plan: Plan) -> list[str]:
    """The names of the jobs that a plan takes, for the time estimate."""
    making = plan.to_make()
    looked_at = plan.unidentified - {link.key for link in making}  # making a checkpoint looks at it, too
    return [link.step.stage for link in making] + ["identify"] * len(looked_at) + [c.suite for c in plan.open_cells()]


class Run:
    """One call of `weighin run`: its id, what failed so far, and where its logs go."""

    def __init__(self, plan: Plan, store: Store, display: Display) -> None:
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
        self.ok = True

    def begin(self) -> None:
        """Keep the run, its labels and its grid before anything is done."""
        self.store.add_machine(machine.row())
        self._add_root(self.plan.base, self.plan.spec.base.model_dump())
        for label, model in self.plan.spec.roots.items():
            root = self.plan.elsewhere[self.plan.chains[label][0].root]
            self._add_root(root, {"model": model})
        self.store.start_run(
            RunRow(
                self.run_id, self.plan.spec.source, self.plan.spec.name, _git_sha(), machine.packages(), self.here,
                datetime.now(UTC),
            ),
            [(label, self.plan.variant(label)) for label in self.plan.chains],
            [(cell.label, cell.suite) for cell in self.plan.cells],
        )  # fmt: skip
        self.store.reuse(self.run_id, [(cell.label, cell.suite, cell.held) for cell in self.plan.cells if cell.held])

    def _add_root(self, root: Checkpoint, params: Mapping[str, Any]) -> None:
        self.store.add_variant(VariantRow(root.key, None, root.key, None, params, 0, datetime.now(UTC)))

    def end(self) -> bool:
        """Keep how the run ended."""
        self.store.end_run(self.run_id, "ok" if self.ok else "failed")
        return self.ok

    def variant(self, label: str) -> None:
        """Make what a variant still lacks, then weigh it."""
        self.made(label)
        for cell in self.plan.cells:
            if cell.label == label:
                self._cell(cell)

    def made(self, label: str) -> None:
        """Make what a variant still lacks, and establish what it is."""
        ours = {link.key for link in self.plan.chains[label]}
        for link in self.plan.to_make():
            if link.key in ours and link.key not in self.broken:
                self._make(link)
        for link in self.plan.chains[label]:
            if link.made:
                self._remember(link)
        key = self.plan.variant(label)
        if key in self.plan.unidentified and key not in self.broken:
            self._identify(label, key)

    # -- checkpoints --------------------------------------------------------------------------------------------

    def _make(self, link: Link) -> None:
        needed = (link.parent, *(key for several in link.others.values() for key in several))
        for key in needed:
            if key in self.broken:
                self.broken[link.key] = self.broken[key]
                return
        stage, parent = link.step.stage, self._checkpoint(link.parent)
        self.display.start(f"make {link.step.where}")
        with checkpoints.building(link.key) as folder:
            log = self._log(f"make-{keys.short(link.key)[:12]}-{stage}")
            others = {name: [self._checkpoint(key) for key in several] for name, several in link.others.items()}
            arguments = {"stage": stage, "params": link.step.params, "parent": parent, "out": folder, "others": others}
            outcome = self._run(worker.Job(jobs.make, arguments, log))
            if outcome.status == "ok":
                found = self._look(Checkpoint(folder, link.key), link.parent, link.root, log)
                reason = found.reason or _unchanged(stage, found.value)
            else:
                found, reason = outcome, outcome.reason
            if reason:
                self._fail(link, f"stage {stage} failed: {reason}", outcome.seconds, log)
                return
            made = _made(link, outcome, {"machine": self.here, **found.value}) | outcome.value
            checkpoints.publish(folder, link.key, made)
        self._remember(link)
        self.display.finish(stage, "ok", outcome.seconds + found.seconds, _summary(found.value))

    def _fail(self, link: Link, reason: str, seconds: float, log: Path) -> None:
        self.ok = False
        self.broken[link.key] = f"{reason} (log: {log})"
        self.display.finish(link.step.stage, "failed", seconds, f"{reason} (log: {log})")

    def _remember(self, link: Link) -> None:
        """Keep a checkpoint that is on disk in the store too: its making, and its identity where it was made here."""
        made = checkpoints.manifest(Checkpoint(checkpoints.place(link.key), link.key))
        self.store.add_variant(
            VariantRow(
                link.key, link.parent, link.root, link.step.stage, link.step.params, link.depth,
                datetime.fromisoformat(made["made_at"]), made["seconds"], made["peak_bytes"],
                made["identity"]["machine"], made.get("joules"), made.get("joules_source"), link.others,
            )
        )  # fmt: skip
        identity = dict(made["identity"])
        if identity.pop("machine") == self.here and self.store.identity(link.key, self.here) is None:
            self.store.add_identity(IdentityRow(link.key, self.here, **identity))

    def _identify(self, label: str, key: str) -> None:
        """Establish what a checkpoint from elsewhere is on this machine: the base, or one made on another machine."""
        if self.store.identity(key, self.here) is not None:
            return
        chain = self.plan.chains[label]
        parent = chain[-1].parent if chain else None
        self.display.start(f"identify {label}")
        root = chain[-1].root if chain else ""
        found = self._look(self._checkpoint(key), parent, root, self._log(f"identify-{label}"))
        if found.status != "ok":
            self.ok = False
            self.broken[key] = f"cannot be loaded: {found.reason}"
            self.display.finish("identify", "failed", found.seconds, self.broken[key])
            return
        self.store.add_identity(IdentityRow(key, self.here, **found.value))
        self.display.finish("identify", "ok", found.seconds, _summary(found.value))

    def _look(self, checkpoint: Checkpoint, parent: str | None, root: str, log: Path) -> worker.Outcome:
        relatives = self._relatives(parent, root)
        return self._run(
            worker.Job(jobs.identify, {"checkpoint": checkpoint, "relatives": relatives, "loading": self.loading}, log)
        )

    def _checkpoint(self, key: str) -> Checkpoint:
        if key == self.plan.base.key:
            return self.plan.base
        return self.plan.elsewhere.get(key) or Checkpoint(checkpoints.place(key), key)

    def _relatives(self, parent: str | None, root: str) -> dict[str, Checkpoint]:
        """Those ancestors that are on disk; a base has none."""
        named = {"parent": parent, "root": root} if parent else {}
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
        chain = self.plan.chains[cell.label]
        arguments = {
            "suite": cell.suite,
            "params": cell.params,
            "checkpoint": self._checkpoint(cell.variant),
            "relatives": self._relatives(*(chain[-1].parent, chain[-1].root) if chain else (None, "")),
            "loading": self.loading,
        }
        return self._run(worker.Job(jobs.measure, arguments, log))

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

    def _run(self, job: worker.Job) -> worker.Outcome:
        return worker.run(job, self.display.progress)

    def _log(self, name: str) -> Path:
        safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
        return checkpoints.home() / "logs" / self.run_id / f"{safe}.log"


def _unchanged(stage: str, identity: Mapping[str, Any]) -> str | None:
    """The fault of a stage that should have changed the weights and did not."""
    if identity["distance"] == 0.0 and registry.stage(stage).changes == "weights":
        return "its weights equal its parent's: the stage changed nothing"
    return None


def _made(link: Link, outcome: worker.Outcome, identity: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "parent": link.parent,
        "root": link.root,
        "depth": link.depth,
        "stage": link.step.stage,
        "params": dict(link.step.params),
        "packages": keys.versions(registry.stage(link.step.stage).needs),
        "made_at": datetime.now(UTC).isoformat(),
        "seconds": outcome.seconds,
        "peak_bytes": outcome.peak_bytes,
        "identity": dict(identity),
    }


def _summary(identity: Mapping[str, Any]) -> str:
    distance = identity["distance"]
    apart = f", {distance:.2g} from its parent" if distance is not None else ""
    return f"{identity['form']}, {identity['disk_bytes'] / 2**20:.1f} MiB on disk{apart}"


def _git_sha() -> str | None:
    answer = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)
    return answer.stdout.strip() or None if answer.returncode == 0 else None
