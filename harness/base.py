"""Find the base model: a hub id, a local directory, or `reference:NAME`. All three take the same path afterwards."""

from pathlib import Path

from weighin.harness.checkpoints import refuse_unsafe
from weighin.harness.endpoint import Endpoint, settle
from weighin.harness.keys import folder_digest
from weighin.harness.plugin import Checkpoint
from weighin.harness.registry import install_command, missing, suggest
from weighin.harness.spec import Base
from weighin.results.errors import WeighinError

# What a checkpoint needs and nothing else: no other framework's weights, no images.
PATTERNS = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"]


def resolve(base: Base, *, download: bool) -> Checkpoint | None:
    """The base as a checkpoint; None for a hub model that is not on this machine yet when `download` is False.

    Raises WeighinError for a path that does not exist, an unknown reference model, a hub that cannot be reached, and
    for weights that need pickle or remote code that the spec does not allow.
    """
    if base.endpoint is not None:
        return _served(base.endpoint, download)
    folder = _folder(base, download)
    if folder is None:
        return None
    refuse_unsafe(folder, list(base.allow))
    return Checkpoint(folder, folder_digest(folder))


def _served(endpoint: Endpoint, download: bool) -> Checkpoint | None:
    try:
        named = None if endpoint.tokenizer is None else tokenizer(endpoint.tokenizer, download)
        return None if endpoint.tokenizer and named is None else settle(endpoint, named)
    except WeighinError as error:
        raise WeighinError(f"base.model: {error}") from None


def tokenizer(model: str, download: bool) -> Path | None:
    """The directory of a model that is named for its tokenizer; None for one on the hub that may not be fetched."""
    try:
        return _folder(Base(model=model), download)
    except WeighinError as error:
        raise WeighinError(str(error).replace("base.model:", "tokenizer:")) from None


def _folder(base: Base, download: bool) -> Path | None:
    if base.model.startswith("reference:"):
        return _reference(base.model.removeprefix("reference:"))
    path = Path(base.model).expanduser()
    if path.is_dir():
        return path.resolve()
    if path.is_file():
        raise WeighinError(f"base.model: {base.model} is a file; a model is a directory with config.json and weights")
    if _looks_local(base.model):
        raise WeighinError(
            f"base.model: no directory {base.model} (looked in {Path.cwd()}). A model is a hub id such as "
            "HuggingFaceTB/SmolLM2-135M, a local directory, or reference:NAME"
        )
    return _hub(base, download)


def _looks_local(model: str) -> bool:
    return model.startswith((".", "/", "~")) or model.count("/") != 1


def _reference(name: str) -> Path:
    from weighin.harness.reference import names, reference_path

    if name not in names():
        raise WeighinError(f"base.model: no reference model {name!r}. {suggest(name, names())}")
    return reference_path(name)


def _hub(base: Base, download: bool) -> Path | None:
    if missing(["huggingface_hub"]):
        raise WeighinError(f"base.model: a hub model needs huggingface_hub: {install_command(['transformers'])}")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns = (
        PATTERNS + (["*.bin"] if "pickle" in base.allow else []) + (["*.py"] if "remote_code" in base.allow else [])
    )
    try:
        found = snapshot_download(
            base.model, revision=base.revision, allow_patterns=patterns, local_files_only=not download
        )
    except HFValidationError as error:
        raise WeighinError(f"base.model: {base.model} is neither a directory nor a hub id: {error}") from None
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        if not download:
            return None
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WeighinError(
            f"base.model: {base.model} is no local directory (looked in {Path.cwd()}), and could not be fetched from "
            f"the hub: {first}"
        ) from None
    return Path(found)
