"""What a results file of lm-eval says of its model, its machine and how it was run."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from weighin.results.outside import counted, moment, name, number, stated, table, value_hash

MODEL_ARGS = ("peft", "delta", "pretrained", "model", "path", "engine")
"""Where a model's name may stand among the model's arguments; the first that is there counts, as in lm-eval."""
PROMPT = ("doc_to_text", "doc_to_target", "doc_to_choice", "description", "fewshot_delimiter", "target_delimiter",
          "fewshot_split", "fewshot_config", "gen_prefix")  # fmt: skip
SCORING = ("metric_list", "filter_list", "output_type", "generation_kwargs", "repeats", "process_results")


def arguments(given: Any) -> dict[str, Any]:
    """The model's arguments, written `a=1,b=2` or as an object."""
    if isinstance(given, dict):
        return {str(key): value for key, value in given.items()}
    if not isinstance(given, str):
        return {}
    pairs = (part.partition("=") for part in given.split(","))
    return {key.strip(): value.strip() for key, _, value in pairs if key.strip()}


def model(path: Path, data: Mapping[str, Any], args: Mapping[str, Any]) -> str:
    """The model's name; where none is given, the kind of model, or the directory that holds the file."""
    said = [args.get(key) for key in MODEL_ARGS]
    found = next((value for value in [*said, data.get("model_name")] if value not in (None, "")), None)
    if found is None:
        found = table(data.get("config")).get("model") or path.parent.name
    return name(found, "unnamed")


def label(path: Path, data: Mapping[str, Any], args: Mapping[str, Any]) -> str:
    """The model's name with the revision that was asked for."""
    own, revision = model(path, data, args), args.get("revision")
    return own if revision in (None, "", "main") else name(f"{own}@{revision}")


def version(data: Mapping[str, Any]) -> str | None:
    """The version of lm-eval; of before 0.4.3 its git hash, if that."""
    found = data.get("lm_eval_version") or data.get("git_hash")
    return name(found) if found else None


def started(path: Path, data: Mapping[str, Any]) -> datetime:
    """When it was run: as the file says, else as its name says, else when the file was written."""
    date = re.search(r"(\d{4}-\d\d-\d\dT\d\d)-(\d\d)-(\d\d(?:\.\d+)?)$", path.stem)
    named = "{}:{}:{}".format(*date.groups()) if date else None
    return moment(data.get("date")) or moment(named) or datetime.fromtimestamp(path.stat().st_mtime, UTC)


def seconds(data: Mapping[str, Any]) -> float | None:
    """How long it took, s; None where the file does not say."""
    try:
        return number(float(data["total_evaluation_time_seconds"]))
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def packages(data: Mapping[str, Any]) -> dict[str, Any]:
    """Versions of what the figures depend on, by import name."""
    report = str(data.get("pretty_env_info") or "")[:1000]
    torch = re.search(r"^PyTorch version: (\S{1,40})$", report, re.MULTILINE)
    return stated(
        lm_eval=data.get("lm_eval_version"),
        transformers=data.get("transformers_version"),
        torch=torch[1] if torch else None,
    )


def machine(data: Mapping[str, Any]) -> dict[str, Any]:
    """What the environment report, which is PyTorch's, says of the machine."""
    report = data.get("pretty_env_info")
    if not isinstance(report, str):
        return {}
    report = report[:100_000]

    def found(pattern: str) -> list[str]:
        return [name(text) for text in re.findall(pattern, report, re.MULTILINE)]

    cores = found(r"^CPU\(s\): +(\d{1,6})$")
    return stated(
        os=next(iter(found(r"^OS: (.+)$")), None),
        cpu=next(iter(found(r"^Model name: +(.+)$")), None),
        cores=int(cores[0]) if cores else None,
        gpu=counted(found(r"^GPU \d+: (.+)$")),
    )


def protocol(data: Mapping[str, Any], args: Mapping[str, Any]) -> dict[str, Any]:
    """What must be alike before figures are compared; `tasks` by task."""
    config = table(data.get("config"))
    shots, versions, hashes = (table(data.get(key)) for key in ("n-shot", "versions", "task_hashes"))
    tasks = {}
    for task in data["results"]:
        setup = table(table(data.get("configs")).get(task))
        tasks[name(task)] = stated(
            version=versions.get(task),
            num_fewshot=shots.get(task, config.get("num_fewshot")),
            dataset=setup.get("dataset_path"),
            dataset_name=setup.get("dataset_name"),
            split=setup.get("test_split") or setup.get("validation_split"),
            prompt=_digest(setup, PROMPT),
            scoring=_digest(setup, SCORING),
            items=hashes.get(task),
        )
    served = {k: v for k, v in args.items() if k not in (*MODEL_ARGS, "revision", "tokenizer", "trust_remote_code")}
    run = ("limit", "batch_size", "gen_kwargs", "random_seed", "numpy_seed", "torch_seed", "fewshot_seed")
    template = ("system_instruction_sha", "chat_template_sha", "fewshot_as_multiturn")
    return {
        "packages": packages(data),
        "model": stated(backend=config.get("model"), dtype=config.get("model_dtype"), arguments=served),
        "run": stated(**{key: config.get(key) for key in run}),
        "chat": stated(**{key: data.get(key) for key in template}),
        "tasks": tasks,
    }


def _digest(setup: Mapping[str, Any], keys: tuple[str, ...]) -> str | None:
    said = {key: setup[key] for key in keys if key in setup}
    return value_hash(said)[:16] if said else None
