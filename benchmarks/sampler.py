"""What a job's process is at, a hundred times a second; loaded by the fork server, so that each of its children has it.

A thread looks at the main thread's stack and adds the time since its last look to the kind of what it finds there.
"""

import json
import os
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import FrameType

FOLDER = "WEIGHIN_BENCH_SAMPLES"  # where each process writes its own file
KINDS = ("stage", "forward", "import", "load", "wait", "library", "ours")
_CALLS = ("_call_impl", "_wrapped_call_impl")


def kind(frames: list[tuple[str, str]]) -> str:
    """What a stack is at, given as file and function from the outermost frame to the innermost."""
    files = [file for file, _ in frames]
    if any("/adapters/" in file and "/site-packages/" not in file for file in files):
        return "stage"
    if any(file.endswith("torch/nn/modules/module.py") and name in _CALLS for file, name in frames):
        return "forward"
    if any(file.startswith("<frozen importlib") for file in files):
        return "import"
    if any(name in ("from_pretrained", "_model") for _, name in frames):
        return "load"
    inner = files[-1] if files else ""
    if inner.endswith(("/selectors.py", "/subprocess.py", "/threading.py", "/popen_fork.py")):
        return "wait"
    return "library" if any("/site-packages/" in file for file in files) else "ours"


def _stack(frame: FrameType | None) -> list[tuple[str, str]]:
    found = []
    while frame:
        found.append((frame.f_code.co_filename, frame.f_code.co_name))
        frame = frame.f_back
    return found[::-1]


def _look(main: int, place: Path) -> None:
    spent: Counter[str] = Counter()
    last = written = time.perf_counter()
    while True:
        time.sleep(0.01)
        stack = _stack(sys._current_frames().get(main))
        now = time.perf_counter()
        spent[kind(stack)] += now - last
        last = now
        if now - written > 0.05:  # often, and whole: a process ends without a word when its job is done
            place.with_suffix(".part").write_text(json.dumps(spent))
            place.with_suffix(".part").replace(place)
            written = now


def _start() -> None:
    if folder := os.environ.get(FOLDER):
        place = Path(folder) / f"{os.getpid()}-{time.time_ns()}.json"
        threading.Thread(target=_look, args=(threading.get_ident(), place), daemon=True).start()


os.register_at_fork(after_in_child=_start)
