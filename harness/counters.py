"""The processor's own energy counters (RAPL) as Linux shows them under /sys/class/powercap."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from weighin.results.errors import WeighinError

POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True)
class Counter:
    """One package's counter: microjoules since some moment, which start anew after `limit`."""

    name: str
    path: Path
    limit: int

    def read(self) -> int:
        """Microjoules now. Raises WeighinError where it cannot be read."""
        try:
            return int(self.path.read_text())
        except (OSError, ValueError) as error:
            raise WeighinError(f"energy counter {self.name} ({self.path}) cannot be read: {error}") from None

    def joules(self, before: int, after: int) -> float:
        """What was counted between two readings, J; a counter that started anew once in between is seen."""
        return (after - before + (self.limit if after < before else 0)) / 1e6


@dataclass(frozen=True)
class Counters:
    """The counters of all packages. Cores, graphics and whole-platform counters are left out: they count twice."""

    packages: tuple[Counter, ...]

    def read(self) -> Mapping[str, int]:
        """Each package's reading, microjoules. Raises WeighinError."""
        return {counter.name: counter.read() for counter in self.packages}

    def joules(self, before: Mapping[str, int], after: Mapping[str, int]) -> float:
        """Joules of all packages between two readings."""
        return sum(each.joules(before[each.name], after[each.name]) for each in self.packages)


def find(root: Path = POWERCAP) -> Counters | None:
    """The packages' counters; None where the machine shows none or does not let them be read."""
    found = []
    for folder in sorted(root.glob("intel-rapl:*")):  # the name is Intel's, AMD processors use it too
        try:
            name = (folder / "name").read_text().strip()
            limit = int((folder / "max_energy_range_uj").read_text())
            counter = Counter(f"{name} ({folder.name})", folder / "energy_uj", limit)
            if folder.name.count(":") == 1 and name.startswith("package"):
                counter.read()
                found.append(counter)
        except (OSError, ValueError, WeighinError):
            return None  # half of the packages would be half of the energy
    return Counters(tuple(found)) if found else None
