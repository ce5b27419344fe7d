"""Run lm-eval's own tasks, filters and metrics on a model in memory.

A task is a YAML file by path, one of ours by name (the reference world's), or any of lm-eval's by name. Data files
are found from the working directory, as lm-eval does, or else beside the YAML file.
"""

import json
from collections.abc import Iterator, Mapping
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import yaml

import weighin.harness
from weighin.harness import Model, WeighinError
from weighin.suites._hflm import language_model

OURS = Path(weighin.harness.__file__).parent / "data" / "tasks"
LOCAL_FORMATS = {"json", "csv", "text", "parquet"}


class Options(NamedTuple):
    """How tasks are scored, by lm-eval's own names; `limit` takes a stratified sample of documents, drawn by `seed`."""

    num_fewshot: int | None = None
    limit: int | None = None
    batch_size: int = 16
    max_length: int | None = None
    add_bos_token: bool | None = None
    fewshot_random_seed: int = 1234
    seed: int = 0


def task_files(params: Mapping[str, Any]) -> list[Path]:
    """The YAML and data files behind `params["tasks"]`: their content counts in the key. Raises WeighinError."""
    found: list[Path] = []
    for task in params["tasks"]:
        path = task_file(task)
        found.append(path)
        found.extend(_read_along(path))
    return found


def task_file(task: str) -> Path:
    """The YAML file of a task. Raises WeighinError for a path or a name that does not exist."""
    path = Path(task).expanduser()
    if path.is_file():
        return path.resolve()
    if "/" in task or path.suffix in {".yaml", ".yml"}:
        raise WeighinError(f"tasks: no file {task} (looked in {Path.cwd()})")
    ours = OURS / f"{task}.yaml"
    return ours if ours.is_file() else _builtin(task)


def _builtin(task: str) -> Path:
    """lm-eval's file for a task, group or tag, found without importing it."""
    import difflib

    spec = find_spec("lm_eval")
    roots = list(spec.submodule_search_locations or []) if spec else []
    names: dict[str, Path] = {path.stem: path for path in OURS.glob("*.yaml")}
    files = [path for root in roots for path in (Path(root) / "tasks").rglob("*.yaml")]
    files.sort(key=lambda path: path.stem != task)  # most are called what they hold: then no other is read
    for path in files:
        names.setdefault(path.stem, path)
        above = ""
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key in {"task", "group", "tag"} and value.strip():
                names[value.strip().strip("'\"")] = path
            elif above in {"group", "tag"} and line.strip().startswith("- "):
                names.setdefault(line.strip()[2:].strip(), path)  # a list of them; one of `task` names others' files
            above = above if line[:1] in {"", " ", "-"} else key
        if names.get(task) == path:
            return path
    near = difflib.get_close_matches(task, names, n=1, cutoff=0.6)
    meant = f" Did you mean {near[0]!r}?" if near else ""
    raise WeighinError(f"tasks: no lm-eval task {task!r}.{meant} A task is an lm-eval name or the path of a YAML file")


class _Loader(yaml.SafeLoader):
    """Reads a task file without running the functions it names."""


_Loader.add_multi_constructor("!", lambda loader, suffix, node: None)


def _read_along(path: Path) -> Iterator[Path]:
    """Local data files, included YAML and the Python module of a task file."""
    try:
        config = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise WeighinError(f"tasks: {path} is not a YAML file: {str(error).splitlines()[0]}") from None
    if not isinstance(config, dict) or not {"task", "group"} & config.keys():
        raise WeighinError(f"tasks: {path} is no lm-eval task: it has neither `task:` nor `group:`")
    if "!function" in path.read_text(encoding="utf-8"):
        yield from sorted(path.parent.glob("*.py"))
    for included in _several(config.get("include")):
        yield from (p for p in [path.parent / included] if p.is_file())
    if config.get("dataset_path") in LOCAL_FORMATS:
        for name in _names((config.get("dataset_kwargs") or {}).get("data_files")):
            if "://" not in name:
                yield _data_file(name, path)


def _data_file(name: str, task: Path) -> Path:
    for candidate in (Path(name), task.parent / name):
        if candidate.is_file():
            return candidate.resolve()
    raise WeighinError(f"tasks: {task}: no data file {name} (looked in {Path.cwd()} and {task.parent})")


def _several(value: Any) -> list[str]:
    return [] if value is None else [value] if isinstance(value, str) else list(value)


def _names(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for part in value.values():
            yield from _names(part)
    else:
        yield from _several(value)


def _located(value: Any, task: Path) -> Any:
    """`data_files` with every local name made absolute."""
    if isinstance(value, dict):
        return {key: _located(part, task) for key, part in value.items()}
    if isinstance(value, list):
        return [_located(part, task) for part in value]
    return value if "://" in value else str(_data_file(value, task))


def load_tasks(tasks: list[str], options: Options) -> dict[str, Any]:
    """lm-eval's task objects, configured as its own `simple_evaluate` would. Raises WeighinError."""
    from lm_eval.tasks import TaskManager
    from lm_eval.tasks._yaml_loader import load_yaml

    specs: list[Any] = []
    beside: set[str] = set()
    for task in tasks:
        path = task_file(task)
        config = load_yaml(path)
        if "group" in config and Path(task).is_file():
            beside.add(str(path.parent))  # where the group's members are
            specs.append(config["group"])
            continue
        kwargs = config.get("dataset_kwargs") or {}
        if config.get("dataset_path") in LOCAL_FORMATS and "data_files" in kwargs:
            config["dataset_kwargs"] = {**kwargs, "data_files": _located(kwargs["data_files"], path)}
            specs.append(config)
        else:
            # A task's file is all that is needed; the members of a group or a tag may be anywhere.
            alone = Path(task).is_file() or (config.get("task") == task and "class" not in config)
            specs.append(str(path) if alone else task)
    # Indexing lm-eval's own 14,000 files takes seconds: only where one of its groups or tags is wanted.
    defaults = any(spec == task and not Path(task).is_file() for task, spec in zip(tasks, specs, strict=True))
    manager = TaskManager(include_path=sorted(beside) or None, include_defaults=defaults)
    loaded: dict[str, Any] = dict(manager.load(specs))
    for task in loaded["tasks"].values():
        default = task.get_config("num_fewshot")
        if options.num_fewshot is not None and default != 0:
            task.set_config(key="num_fewshot", value=options.num_fewshot)
        elif default is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=options.fewshot_random_seed)
    return loaded


def evaluate(model: Model, tasks: Mapping[str, Any], options: Options) -> dict[str, list[dict[str, Any]]]:
    """Every task's samples as lm-eval logs them: one dict a document and filter."""
    import lm_eval

    lm = language_model(model, options.batch_size, options.max_length, options.add_bos_token)
    limit = options.limit
    chosen = {name: subset(task, limit, options.seed) for name, task in tasks["tasks"].items()} if limit else None
    # `simple_evaluate` would collect the whole environment at each call (pip list and more): seconds for nothing.
    results = lm_eval.evaluate(lm, dict(tasks), samples=chosen, bootstrap_iters=0, log_samples=True)
    samples: dict[str, list[dict[str, Any]]] = results["samples"]
    return samples


def subset(task: Any, limit: int, seed: int) -> list[int]:
    """Places of at most `limit` of a task's documents, in order: each answer's share as in the whole, drawn by `seed`.

    lm-eval's own limit takes the first ones, which in many a task are of one subject or one answer. A smaller limit
    takes a part of what a larger one takes.
    """
    strata: dict[str, list[tuple[str, int]]] = {}
    for place, row in enumerate(task.eval_docs):
        draw = sha256(f"{seed}:{json.dumps(row, sort_keys=True, default=str)}:{place}".encode()).hexdigest()
        strata.setdefault(str(task.doc_to_target(row))[:200], []).append((draw, place))
    ranked = []
    for members in strata.values():
        for rank, (draw, place) in enumerate(sorted(members)):
            ranked.append(((rank + 0.5) / len(members), draw, place))
    return sorted(place for _, _, place in sorted(ranked)[:limit])


def item_keys(samples: list[dict[str, Any]]) -> list[str]:
    """A content hash for each sample's document; the second of two equal documents is told apart by a count."""
    seen: dict[tuple[str, str], int] = {}
    keys: list[str] = []
    for sample in samples:
        text = json.dumps(sample["doc"], sort_keys=True, ensure_ascii=False, default=str)
        key = sha256(text.encode()).hexdigest()[:32]
        place = (str(sample.get("filter")), key)
        seen[place] = seen.get(place, 0) + 1
        keys.append(key if seen[place] == 1 else f"{key}#{seen[place]}")
    return keys
