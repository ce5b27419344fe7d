"""Planted truths of the suite energy: counter files that are written by the work itself, to the microjoule."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from weighin.harness import Abstain
from weighin.harness.plant import Recovered, Target, plant
from weighin.suites.energy import weigh

LIMIT = 262_143_328_850
"""Where a common processor's counter starts anew, microjoules."""
TOKENS, REQUESTS = 50, 2


@contextmanager
def _machine(start: int) -> Iterator[tuple[Path, Callable[[int], None]]]:
    """A powercap folder of one package with a core inside and a platform counter, and what advances them all."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for place, name in (("intel-rapl:0", "package-0"), ("intel-rapl:0:0", "core"), ("intel-rapl:1", "psys")):
            (root / place).mkdir()
            (root / place / "name").write_text(name)
            (root / place / "max_energy_range_uj").write_text(str(LIMIT))
            (root / place / "energy_uj").write_text(str(start))

        def advance(microjoules: int) -> None:
            for file in root.glob("*/energy_uj"):
                file.write_text(str((int(file.read_text()) + microjoules) % LIMIT))

        yield root, advance


def _per_token(root: Path, work: Callable[[], tuple[int, int]]) -> tuple[float, set[str]]:
    samples = [s for s in weigh(work, 4, 0.01, powercap=root) if s.metric and s.metric.name == "per_token"]
    values = [s.value for s in samples if s.value is not None]
    return sum(values) / len(values), {s.source for s in samples}


@plant(needs=("codecarbon",))
def counters_of_known_joules() -> Iterator[Recovered]:
    """Windows of exactly 3 J for 50 tokens: a counter that rises, and one that starts anew in between."""
    for name, start in (("a rising counter", 1_000_000), ("it starts anew", LIMIT - 5_000_000)):
        with _machine(start) as (root, advance):

            def work(advance: Callable[[int], None] = advance) -> tuple[int, int]:
                advance(3_000_000)
                return TOKENS, REQUESTS

            value, sources = _per_token(root, work)
        target = Target("=", 3 / TOKENS, 1e-9)
        yield Recovered("energy, counted", f"3 J a window, {name}", value, target, "J/token", planted=3 / TOKENS)
        yield Recovered("source is counter", name, float(sources == {"counter"}), Target("=", 1))


@plant(needs=("codecarbon",))
def a_rising_load() -> Iterator[Recovered]:
    """Windows of 1 to 4 J: their mean is exactly 2.5 J."""
    with _machine(7) as (root, advance):
        joules = iter(range(1, 5))

        def work() -> tuple[int, int]:
            advance(next(joules) * 1_000_000)
            return TOKENS, REQUESTS

        value, _ = _per_token(root, work)
    yield Recovered("energy, counted", "1 to 4 J a window", value, Target("=", 2.5 / TOKENS, 1e-9), "J/token")


@plant(needs=("codecarbon",))
def a_counter_that_is_taken_away() -> Iterator[Recovered]:
    """It can no longer be read in the middle of a window: the suite abstains. Never readable: it is no counter."""
    with _machine(7) as (root, advance):

        def work() -> tuple[int, int]:
            advance(1_000_000)
            (root / "intel-rapl:0" / "energy_uj").unlink(missing_ok=True)
            return TOKENS, REQUESTS

        abstained = 0.0
        try:
            _per_token(root, work)
        except Abstain:
            abstained = 1.0
        yield Recovered("abstains", "unreadable in a window", abstained, Target("=", 1))

        def idle() -> tuple[int, int]:
            sum(range(200_000))
            return TOKENS, REQUESTS

        _, sources = _per_token(root, idle)
        yield Recovered("source is modelled", "never readable", float(sources == {"modelled"}), Target("=", 1))
