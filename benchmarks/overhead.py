"""What a run's wall time goes to: python -m benchmarks.overhead [SPEC|120M], in the repository's folder.

The spec (default: the packaged default; 120M: one that scores a large model of random weights) is run twice, into a
store and a home of its own. Of the first run a sampling thread in each job's process tells how long it was inside a
model's forward pass, a stage, another library, and so on; what is left is the program that plans, starts processes and
keeps results. The second run finds everything held.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from benchmarks.openvino import write_model
from benchmarks.sampler import FOLDER, KINDS

LARGE = {
    "variants": {"int8": {"int8": {}}},
    "suites": {"accuracy": {"tasks": ["world_facts"]}, "fidelity": {"samples": 24, "limit": 100}, "reliability": {}},
}
SAMPLED = "from weighin.harness import worker; worker.PRELOAD.append('benchmarks.sampler'); "
MAIN = "import sys; from weighin.harness.cli import main; sys.exit(main(sys.argv[1:]))"


def timed(program: str, arguments: list[str], folder: Path) -> float:
    """Seconds of one call of `weighin`; ends with what it said where it fails."""
    began = time.perf_counter()
    output = folder / "output.txt"
    with output.open("w") as file:
        code = subprocess.run([sys.executable, "-c", program, *arguments], stdout=file, stderr=file).returncode
    if code:
        sys.exit(f"{output.read_text()}\nexit code {code}")
    return time.perf_counter() - began


def main() -> None:
    """Run both and print where the time went."""
    spec = sys.argv[1] if len(sys.argv) > 1 else "default"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        samples = folder / "samples"
        samples.mkdir()
        if spec == "120M":
            write_model(folder / "model")
            spec = str(folder / "large.yaml")
            content = {"base": {"model": str(folder / "model"), "dtype": "float32"}, **LARGE}
            Path(spec).write_text(json.dumps(content))  # JSON is YAML
        os.environ |= {"WEIGHIN_HOME": str(folder / "home"), FOLDER: str(samples)}
        arguments = ["run", spec, "--store", str(folder / "w.duckdb")]
        wall = timed(SAMPLED + MAIN, arguments, folder)
        spent: Counter[str] = Counter()
        for file in samples.glob("*.json"):
            spent.update(json.loads(file.read_text()))
        again = [timed(MAIN, arguments, folder) for _ in range(3)]
    print(f"{spec}: {wall:.0f} s")
    for each in KINDS:
        print(f"  {each:8} {spent[each]:7.1f} s  {spent[each] / wall:6.1%}")
    print(f"  {'rest':8} {wall - spent.total():7.1f} s  {1 - spent.total() / wall:6.1%}")
    print(f"wall / (forward + stage): {wall / (spent['forward'] + spent['stage']):.2f}")
    print(f"second run: {', '.join(f'{each:.1f}' for each in again)} s")


if __name__ == "__main__":
    main()
