"""Plugins of the tests, brought in as a user's own package would bring them: through entry points."""

from pathlib import Path

STAGES = {
    "halve": """
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
        model = AutoModelForCausalLM.from_pretrained(parent.path)
        with torch.no_grad():
            for p in model.parameters():
                p.mul_(factor)
        model.save_pretrained(out)
        AutoTokenizer.from_pretrained(parent.path).save_pretrained(out)
    """,
    "jitter": """
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
        model = AutoModelForCausalLM.from_pretrained(parent.path)
        torch.manual_seed(seed)
        with torch.no_grad():
            for p in model.parameters():
                p.mul_(1 + factor * torch.randn(()))
        model.save_pretrained(out)
        AutoTokenizer.from_pretrained(parent.path).save_pretrained(out)
    """,
    "reorder": """
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
        model = AutoModelForCausalLM.from_pretrained(parent.path)
        with torch.no_grad():
            for layer in model.model.layers:
                order = torch.randperm(model.config.intermediate_size)
                for name, dim in (("gate_proj", 0), ("up_proj", 0), ("down_proj", 1)):
                    weight = getattr(layer.mlp, name).weight
                    weight.copy_(weight.index_select(dim, order))
        model.save_pretrained(out)
        AutoTokenizer.from_pretrained(parent.path).save_pretrained(out)
    """,
    "widen": """
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
        old = AutoModelForCausalLM.from_pretrained(parent.path)
        config = AutoConfig.from_pretrained(parent.path)
        config.intermediate_size = int(config.intermediate_size * (1 + factor))
        new = AutoModelForCausalLM.from_config(config, dtype=old.dtype)
        weights = old.state_dict()
        with torch.no_grad():
            for name, weight in new.state_dict().items():
                weight.zero_()[tuple(slice(n) for n in weights[name].shape)] = weights[name]
        new.save_pretrained(out)
        AutoTokenizer.from_pretrained(parent.path).save_pretrained(out)
    """,
    "copy": "import shutil; shutil.copytree(parent.path, out, dirs_exist_ok=True)",
    "explode": "raise RuntimeError('the fuse was short')",
    "vanish": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "idle": "pass",
}

SUITES = {
    "count": "yield Sample('parameters', float(sum(p.numel() for p in model.module.parameters())))",
    "sizes": "yield from (Sample(n, float(p.detach().norm())) for n, p in model.module.named_parameters())",
    "shy": "raise Abstain('nothing to see here'); yield",
    "crash": "raise ValueError('no such luck'); yield",
    "killed": "import os, signal; os.kill(os.getpid(), signal.SIGKILL); yield",
    "greedy": "raise MemoryError; yield",
    "silent": "return; yield",
    "twice": "yield Sample('a', 1.0); yield Sample('a', 2.0)",
    "slow": """
        import time
        from pathlib import Path
        with open(trace, 'a') as file:
            file.write(str(Path('/proc/self').resolve().name) + '\\\\n')
        for _ in range(40):
            time.sleep(0.05)
        yield Sample('a', 1.0)
    """,
}


def _indented(body: str, indent: int = 4) -> str:
    import textwrap

    return textwrap.indent(textwrap.dedent(body.replace("\\\\n", "\\n")).strip(), " " * indent)


def write_package(folder: Path) -> Path:
    """Write an installed-looking distribution with the plugins above; put the folder on `sys.path` to use them."""
    lines = {"stage": ["[weighin.adapters]"], "suite": ["[weighin.suites]"]}
    for name, body in STAGES.items():
        text = f'"""{name}: a stage of the tests."""\nfrom weighin.harness import stage\n\n@stage()\n'
        seed = ", seed: int = 0" if "seed" in body else ""
        text += f'def {name}(parent, out, *, factor: float = 0.5{seed}) -> None:\n    """Do it."""\n{_indented(body)}\n'
        (folder / f"tp_{name}.py").write_text(text)
        lines["stage"].append(f"{name} = tp_{name}")
    for name, body in SUITES.items():
        text = f'"""{name}: a suite of the tests."""\nfrom weighin.harness import Abstain, Metric, Sample, suite\n\n'
        text += f'@suite(Metric("value", unit="1"))\ndef {name}(model, *, trace: str = "/dev/null"):\n'
        text += f'    """Measure it."""\n{_indented(body)}\n'
        (folder / f"tp_{name}.py").write_text(text)
        lines["suite"].append(f"{name} = tp_{name}")
    info = folder / "weighin_test_plugins-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: weighin-test-plugins\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("\n".join(lines["stage"] + lines["suite"]) + "\n")
    return folder
