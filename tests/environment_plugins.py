"""A plugin package with an environment of its own, and the wheels that its list names, made on the spot."""

import sysconfig
import zipfile
from collections.abc import Sequence
from pathlib import Path

STAGE = '''"""abroad: a stage of the tests whose library is not installed here."""
from pathlib import Path
from weighin.harness import Weight, outline, stage


class Opened:
    """transformers again, as if it were a runtime of its own."""
    name = "abroad"

    def __init__(self, folder):
        import tiny_one, torch
        from transformers import AutoModelForCausalLM
        self.module = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def weights(self):
        import numpy as np
        seen = set()
        for name, p in self.module.named_parameters():
            if id(p) not in seen:
                seen.add(id(p))
                layer = name.removesuffix(".weight")
                value = (lambda p=p: p.detach().numpy()) if p.dim() == 2 else None
                yield Weight(layer, "float32", p.numel(), 4 * p.numel(), value)

    def kernel(self, ids):
        return "abacus"

    def cache_bytes(self, ids):
        return None

    def settings(self):
        return {"beads": 10}


@stage(needs=("tiny_one",), environment="tiny", changes="runtime", opens=Opened,
       foresee=lambda parent, params: outline.plain("abroad", parent))
def abroad(parent, out, *, factor: float = 0.5) -> None:
    """Scale every weight, by what the library says."""
    import tiny_one
    from transformers import AutoModelForCausalLM, AutoTokenizer
    model = AutoModelForCausalLM.from_pretrained(parent.path)
    for p in model.parameters():
        p.data.mul_(factor * tiny_one.ONE)
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(parent.path).save_pretrained(out)


def where():
    """Which interpreter this is, and what it can import."""
    import os, sys
    from importlib.util import find_spec
    import tiny_one
    return {"prefix": sys.prefix, "one": tiny_one.ONE, "pydantic": find_spec("pydantic") is not None,
            "pid": os.getpid(), "host": os.getppid(), "weighin": find_spec("weighin.harness").origin}


def linger():
    import time
    time.sleep(600)


def vanish():
    import os, signal
    os.kill(os.getpid(), signal.SIGKILL)
'''


def write_plugins(folder: Path, packages: Sequence[str]) -> Path:
    """An installed-looking package `tp_abroad` whose stage names the environment `tiny`, a list of `packages`."""
    package = folder / "tp_abroad"
    (package / "environments").mkdir(parents=True)
    (package / "__init__.py").write_text(STAGE, encoding="utf-8")
    write_list(folder, packages)
    info = folder / "weighin_test_abroad-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: weighin-test-abroad\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[weighin.adapters]\nabroad = tp_abroad\n")
    return folder


def write_list(folder: Path, packages: Sequence[str], comment: str = "") -> None:
    """The list of the environment `tiny`."""
    text = f"# {comment}\n" + "".join(f"{package}\n" for package in packages)
    (folder / "tp_abroad" / "environments" / "tiny.txt").write_text(text, encoding="utf-8")


def write_wheel(folder: Path, name: str, files: dict[str, str] | None = None, version: str = "1.0") -> None:
    """A wheel of pure Python: the module `name`, which says ONE = 1.0, unless `files` says otherwise."""
    content = files or {f"{name}.py": "ONE = 1.0\n"}
    info = f"{name}-{version}.dist-info"
    content |= {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in [*content, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in {**content, f"{info}/RECORD": record}.items():
            wheel.writestr(path, text)


def write_ours_wheel(folder: Path) -> None:
    """A wheel that lends an environment what is installed here, so that a test need not install torch again."""
    places = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    write_wheel(folder, "ours", {"ours.pth": "".join(f"{place}\n" for place in sorted(places))})
