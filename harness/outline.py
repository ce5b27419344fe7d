"""What is known of a checkpoint before it exists: enough to refuse an impossible chain at `plan`. Imports no torch."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from weighin.results.errors import WeighinError

ADAPTER = "adapter_config.json"
STRUCTURE = "structure.json"
SERVING = "serving.json"
RUNTIME = "runtime.json"


@dataclass(frozen=True)
class Outline:
    """A checkpoint's config.json and what its weights are like. An empty field means: nothing of that kind."""

    config: Mapping[str, Any] = field(default_factory=dict)
    """config.json, as far as it is known; empty for a model that is not on this machine."""
    vocabulary: str = ""
    """Hash of the tokens and their ids; empty where unknown."""
    packed: str = ""
    """What quantised the weights, where they are packed."""
    attached: str = ""
    """The kind of adapter that is kept beside the weights."""
    structure: str = ""
    """How its modules differ from those that config.json describes."""
    served: str = ""
    """The stage that changed how it is served."""
    runtime: str = ""
    """The stage whose runtime computes it; empty: PyTorch."""

    def but(self, **changes: Any) -> "Outline":
        """The same outline with some fields changed."""
        return replace(self, **changes)


def read(path: Path) -> Outline:
    """The outline of a checkpoint on disk."""
    adapter = _json(path / ADAPTER)
    if adapter and not (path / "config.json").is_file():
        below = read(Path(str(adapter.get("base_model_name_or_path"))))
        return below.but(attached=str(adapter.get("peft_type", "adapter")).lower())
    config = _json(path / "config.json")
    packing = config.get("quantization_config") or {}
    return Outline(
        config,
        vocabulary(path),
        packed=str(packing.get("quant_method", "unknown method")) if packing else "",
        structure=", ".join(sorted(_json(path / STRUCTURE))),
        served="serving" if (path / SERVING).is_file() else "",
        runtime=str(_json(path / RUNTIME).get("stage", "")),
    )


def mark(out: Path, stage: str) -> None:
    """Write down whose runtime opens a directory."""
    (out / RUNTIME).write_text(json.dumps({"stage": stage}) + "\n", encoding="utf-8")


def vocabulary(path: Path) -> str:
    """Hash of the tokens and their ids of the tokenizer in a directory; empty where it has no tokenizer.json."""
    tokenizer = _json(path / "tokenizer.json")
    if not tokenizer:
        return ""
    table = tokenizer.get("model", {}).get("vocab", {})
    added = [[token.get("id"), token.get("content")] for token in tokenizer.get("added_tokens", [])]
    text = json.dumps([table, added], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def loader(seen: Outline) -> str:
    """What it takes besides the directory to load a checkpoint as it acts."""
    if seen.runtime:
        return f"{seen.runtime}; weighin to serve it so" if seen.served else seen.runtime
    if seen.structure:
        return "weighin"
    if seen.attached == "prompt_tuning":
        return "peft"
    parts = [seen.packed, "peft" if seen.attached else ""]
    with_ = " and ".join(part for part in parts if part)
    plain = f"transformers with {with_}" if with_ else "transformers"
    return f"{plain}; weighin to serve it so" if seen.served else plain


def dense(stage: str, parent: Outline) -> Outline:
    """The parent with its adapter merged. Raises WeighinError where its weights are not dense ones to rewrite."""
    unserved(stage, parent)
    if parent.packed:
        raise WeighinError(
            f"the parent's weights are already quantised ({parent.packed}), and {stage} needs dense ones. "
            f"Put {stage} before the quantising stage of the chain"
        )
    if parent.attached == "prompt_tuning":
        raise WeighinError(f"a soft prompt cannot be merged into the weights that {stage} rewrites. Put {stage} first")
    return parent.but(attached="")


def unserved(stage: str, parent: Outline) -> None:
    """Raises WeighinError where the parent differs from its own parent in how it is served, which would be lost."""
    if parent.served:
        raise WeighinError(
            f"{stage} makes new weights, and the parent only changes how a model is served ({parent.served}). "
            f"Put {stage} before it"
        )
    if parent.runtime:
        raise WeighinError(
            f"the parent is an export that {parent.runtime} computes with, and {stage} needs weights of PyTorch's. "
            f"Put {stage} before {parent.runtime}"
        )


def plain(stage: str, parent: Outline) -> Outline:
    """Like `dense`, and the modules are those that config.json describes: nothing factorised, nothing shared."""
    found = dense(stage, parent)
    if found.structure:
        raise WeighinError(
            f"the parent's modules are not those of its architecture ({found.structure}), and {stage} needs them to "
            f"be. Put {stage} first"
        )
    return found


def same_vocabulary(stage: str, ours: Outline, theirs: Outline, what: str) -> None:
    """Raises WeighinError where two models do not share their tokens."""
    if ours.vocabulary and theirs.vocabulary and ours.vocabulary != theirs.vocabulary:
        raise WeighinError(f"{what} has another vocabulary than the model, and {stage} compares them token by token")


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise WeighinError(f"{path}: cannot be read ({error})") from None
    return content if isinstance(content, dict) else {}
