"""Work on a Ray cluster: makes and cells become tasks that ask for room, near the checkpoints that they read.

Steps of the run take turns in this process while their work is elsewhere (`steps`).
"""
# pyright: reportMissingImports=false
# (Ray is an extra of its own)

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from weighin.harness import machine, worker
from weighin.harness.engine import Lost, Runner, Task, Wants
from weighin.harness.steps import Steps
from weighin.results.address import Address
from weighin.results.errors import WeighinError

ATTEMPTS = 3
"""How many machines may be lost with a piece of work before it is what takes them down."""

KEPT = (
    "OMP_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "GOMP_SPINCOUNT",
    "WEIGHIN_HOME",
    "WEIGHIN_CHECKPOINTS",
    "WEIGHIN_KV_BUDGET",
    "TOKENIZERS_PARALLELISM",
)
"""What of this process's environment the work sees elsewhere, absent where it is absent here: Ray sets the first."""

LOOPBACK = "127.0.0.2"
"""Where a cluster of our own listens: Ray takes 127.0.0.1 for the network's address, and this one as it is."""


class Ray:
    """A cluster: an address, or None for one on this machine that ends with the run."""

    def __init__(self, address: str | None = None) -> None:
        self.address = address
        self.nodes: dict[str, Mapping[str, float]] = {}
        """What each living node has (CPU, GPU, memory), by its id."""
        self._steps = Steps()
        self._held: dict[str, str] = {}
        """Which node read a checkpoint last."""
        self._busy: Counter[str] = Counter()
        """Pieces of work that each node has been sent and has not answered."""
        self._pending: set[Any] = set()

    def each(self, tasks: Sequence[Task]) -> None:
        """Call every task once all that it stands on have been, as many at a time as the cluster has room for."""
        with self._connected():
            width = max(2, 2 * int(sum(node["CPU"] for node in self.nodes.values())))
            self._steps.each(tasks, width, self._stop)

    def _stop(self) -> None:
        """Whoever waits for work waits no longer, and the work ends."""
        import ray

        for pending in list(self._pending):
            ray.cancel(pending, force=True)

    def do(self, work: Callable[[Runner], Any], wants: Wants, progress: worker.Progress) -> Any:
        """What `work` returns, on a node of this machine's class. Others take their turn meanwhile.

        A machine that is lost with it is tried elsewhere, three in all; then, and where the work itself raises,
        raises `Lost`.
        """
        from ray import exceptions

        said, lost = "", set[str]()
        for _ in range(ATTEMPTS):
            where = self._choose(wants, lost)
            try:
                node, answer = self._answer(self._submit(work, wants, where), where)
            except (exceptions.RayTaskError, WeighinError) as error:
                raise Lost(f"on node {where[:8]}: {_first_line(getattr(error, 'cause', None) or error)}") from None
            except exceptions.RayError as error:  # the worker, its node or the room for it went away
                if self._steps.stopped:
                    raise
                said = _first_line(error)
                lost.add(where)
                continue
            self._held.update({key: node for key in wants.near})
            return answer
        raise Lost(f"{ATTEMPTS} workers were lost with it, the last by {said}")

    def _answer(self, pending: Any, where: str) -> Any:
        """Wait for it, and let others take their turn until it is there."""
        import ray

        self._busy[where] += 1
        self._pending.add(pending)
        try:
            with self._steps.away():
                return ray.get(pending)
        finally:
            self._pending.discard(pending)
            self._busy[where] -= 1

    def _choose(self, wants: Wants, lost: set[str]) -> str:
        """The node that read the checkpoint last; else the one with the least to do. None that lost it already."""
        self._look()
        able = {node for node in self.nodes if node not in lost} or set(self.nodes)
        for key in wants.near:
            if self._held.get(key) in able:
                return self._held[key]
        return min(able, key=lambda node: (self._busy[node] / self.nodes[node]["CPU"], node))

    def _submit(self, work: Callable[[Runner], Any], wants: Wants, where: str) -> Any:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        # What is asked for is an estimate: more than the node has would wait for ever.
        has = self.nodes[where]
        remote = ray.remote(_there).options(
            num_cpus=has["CPU"] if wants.alone else min(wants.cpus, has["CPU"]),
            num_gpus=min(wants.gpus, has.get("GPU", 0.0)),
            memory=int(min(wants.memory, has.get("memory", 0.0))) or None,
            max_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(where, soft=True),  # soft: another, where it is gone
        )
        kept = {name: os.environ.get(name) for name in KEPT}
        return remote.remote(work, wants.threads, machine.machine_key(), kept)

    # -- the cluster --------------------------------------------------------------------------------------------

    @contextmanager
    def _connected(self) -> Iterator[None]:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # nothing is told to anybody
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        import ray

        started = not ray.is_initialized()
        if started:
            quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}
            if self.address:
                host = self.address.rpartition(":")[0]
                if Address(host).loopback:  # else this process would be looked for at the network's address
                    quiet["_node_ip_address"] = host
                try:
                    ray.init(address=self.address, **quiet)
                except (ConnectionError, ValueError, RuntimeError) as error:
                    raise WeighinError(
                        f"--address {self.address}: no Ray cluster there: {_first_line(error)}"
                    ) from None
            else:
                ray.init(include_dashboard=False, _node_ip_address=LOOPBACK, **quiet)
        try:
            self._look()
            yield
        finally:
            if started:
                ray.shutdown()

    def _look(self) -> None:
        """The nodes that are alive."""
        import ray

        self.nodes = {
            node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")
        }
        if not self.nodes:
            raise WeighinError("the Ray cluster has no node with a processor; start one: ray start --address=HEAD")


def _there(
    work: Callable[[Runner], Any], threads: int | None, expected: str, environment: dict[str, str | None]
) -> tuple[str, Any]:
    """On the node: its id, and what the work gives, in processes of its own, as it would where it was sent from."""
    import ray

    for name, value in environment.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    machine.facts.cache_clear()
    node = ray.get_runtime_context().get_node_id()
    if machine.machine_key() != expected:
        reason = f"node {machine.hostname()} is of another machine class than {expected[:12]}, which the run weighs"
        return node, worker.Outcome("failed", reason=reason)
    return node, work(lambda job: worker.run(replace(job, threads=threads)))


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"
