"""Work on a Ray cluster: makes and cells become tasks that ask for room, near the checkpoints that they read.

Steps of the run take turns in this process, a thread each that waits while its work is elsewhere; so the store has one
writer, and the order of what is kept is one that `local` could have come to.
"""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

from weighin.harness import machine, worker
from weighin.harness.engine import Lost, Runner, Task, Wants
from weighin.results.address import Address
from weighin.results.errors import WeighinError

ATTEMPTS = 3
"""How many machines may be lost with a piece of work before it is what takes them down."""

KEPT = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "WEIGHIN_HOME", "WEIGHIN_CHECKPOINTS", "TOKENIZERS_PARALLELISM")
"""What of this process's environment the work sees elsewhere, absent where it is absent here: Ray sets the first."""


class Ray:
    """A cluster: an address, or None for one on this machine that ends with the run."""

    def __init__(self, address: str | None = None) -> None:
        self.address = address
        self.nodes: dict[str, float] = {}
        """Processors of each node of this machine's class, by id."""
        self._turn = threading.Lock()
        self._last: dict[str, str] = {}
        """Which node read a checkpoint last."""

    def each(self, tasks: Sequence[Task]) -> None:
        """Call every task once all that it stands on have been, as many at a time as the cluster has room for."""
        with self._connected():
            width = max(2, 2 * int(sum(self.nodes.values())))
            with ThreadPoolExecutor(width, thread_name_prefix="weighin-step") as pool:
                try:
                    self._follow({task.name: task for task in tasks}, pool)
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise

    def _follow(self, open_: dict[str, Task], pool: ThreadPoolExecutor) -> None:
        names, done, going = set(open_), set[str](), dict[Future[None], str]()
        while open_ or going:
            for name, task in list(open_.items()):
                if all(other in done or other not in names for other in task.after):
                    going[pool.submit(self._step, task)] = name
                    del open_[name]
            ended, _ = wait(going, return_when=FIRST_COMPLETED)
            for future in ended:
                future.result()
                done.add(going.pop(future))

    def _step(self, task: Task) -> None:
        with self._turn:
            task.act()

    def do(self, work: Callable[[Runner], Any], wants: Wants, progress: worker.Progress) -> Any:
        """What `work` returns, on a node of this machine's class. Others take their turn meanwhile.

        A machine that is lost with it is tried elsewhere, three in all; then raises `Lost`.
        """
        import ray

        said = ""
        for _ in range(ATTEMPTS):
            where = self._choose(wants)
            pending = self._submit(work, wants, where)
            self._turn.release()
            try:
                answer = ray.get(pending)
            except (ray.exceptions.RayTaskError, WeighinError):
                raise
            except ray.exceptions.RayError as error:  # the worker, its node or the room for it went away
                said = f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"
                continue
            finally:
                self._turn.acquire()
            self._last.update(dict.fromkeys(wants.near, where))
            return answer
        raise Lost(f"{ATTEMPTS} workers were lost with it, the last by {said}")

    def _choose(self, wants: Wants) -> str:
        """The node that read the checkpoint last, where it is still there."""
        self._look()
        for key in wants.near:
            if self._last.get(key) in self.nodes:
                return self._last[key]
        return max(self.nodes, key=lambda node: (self.nodes[node], node))

    def _submit(self, work: Callable[[Runner], Any], wants: Wants, where: str) -> Any:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        cpus = self.nodes[where] if wants.alone else min(wants.cpus, self.nodes[where])
        remote = ray.remote(_there).options(
            num_cpus=cpus,
            num_gpus=wants.gpus,
            memory=wants.memory or None,
            max_retries=0,
            # a preference: where it has no room, one that has will do, and fetch what it lacks
            scheduling_strategy=NodeAffinitySchedulingStrategy(where, soft=True),
        )
        kept = {name: os.environ.get(name) for name in KEPT}
        return remote.remote(work, machine.machine_key(), kept)

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
                if Address(self.address.rpartition(":")[0]).loopback:  # else Ray asks for it at the network's address
                    quiet["_node_ip_address"] = "127.0.0.1"
                try:
                    ray.init(address=self.address, **quiet)
                except (ConnectionError, ValueError, RuntimeError) as error:
                    said = next(iter(str(error).strip().splitlines()), "")
                    raise WeighinError(f"--address {self.address}: no Ray cluster there: {said}") from None
            else:
                ray.init(include_dashboard=False, _node_ip_address="127.0.0.1", **quiet)
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
            node["NodeID"]: float(node["Resources"]["CPU"])
            for node in ray.nodes()
            if node["Alive"] and node["Resources"].get("CPU")
        }
        if not self.nodes:
            raise WeighinError("the Ray cluster has no node with a processor; start one: ray start --address=HEAD")


def _there(work: Callable[[Runner], Any], expected: str, environment: dict[str, str | None]) -> Any:
    """On the node: the work, in processes of its own, as it would be done where it was sent from."""
    for name, value in environment.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    machine.facts.cache_clear()
    if machine.machine_key() != expected:
        reason = f"node {machine.hostname()} is of another machine class than {expected[:12]}, which the run weighs"
        return worker.Outcome("failed", reason=reason)
    return work(worker.run)
