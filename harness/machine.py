"""What this machine is: the fingerprint that decides which figures may be compared, and the packages installed."""

import os
import platform
import re
import shutil
import socket
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from weighin.harness.keys import digest
from weighin.results.rows import Machine


@cache
def facts() -> dict[str, Any]:
    """What makes two machines comparable: processor, cores, memory, accelerator, system. No host name."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "ram_gib": round(ram_bytes() / 2**30),
        "gpu": _gpu(),
        "system": platform.system(),
        "machine": platform.machine(),
        "python": ".".join(platform.python_version_tuple()[:2]),
        "threads": os.environ.get("OMP_NUM_THREADS"),
    }


def machine_key() -> str:
    """Key of this machine's class."""
    return digest(facts())


def hostname() -> str:
    """For people; it is in no key."""
    return socket.gethostname()


def row() -> Machine:
    """This machine as the store keeps it."""
    found = facts()
    system = f"{found['system']} {found['machine']}"
    return Machine(machine_key(), hostname(), system, found["cpu"], found["cores"], ram_bytes(), found["gpu"], found)


def ram_bytes() -> int:
    """Physical memory, B."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


_HEAD = {key: re.compile(rf"^{key}: *(\S+)", re.MULTILINE) for key in ("Name", "Version")}


def packages() -> dict[str, str]:
    """Every installed distribution and its version."""
    heads = (each.read_text("METADATA") or each.read_text("PKG-INFO") or "" for each in metadata.distributions())
    # their own parser reads whole documents as e-mail: ten times slower than the two lines that are wanted
    found = ([_HEAD[key].search(head) for key in ("Name", "Version")] for head in heads)
    return {name[1]: version[1] for name, version in found if name and version}


def commit() -> str | None:
    """The commit that the working directory's git repository is at; None where there is none, or no git."""
    tool = shutil.which("git")
    if tool is None:
        return None
    answer = subprocess.run([tool, "rev-parse", "HEAD"], capture_output=True, text=True)
    return answer.stdout.strip() or None if answer.returncode == 0 else None


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _gpu() -> str | None:
    """Names and driver as the vendor's tool reports them; None where there is no accelerator."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    query = [tool, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    answer = subprocess.run(query, capture_output=True, text=True, timeout=30)
    return answer.stdout.strip() or None if answer.returncode == 0 else None
