"""The spec: one flat YAML file into a checked `Spec`. Every error says where, what is wrong and what is allowed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from weighin.harness import registry
from weighin.harness.endpoint import Endpoint
from weighin.harness.spec_gate import GateText, checked_rules
from weighin.harness.view import FrontKey
from weighin.results.errors import WeighinError
from weighin.results.rules import Rule

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Scorer = Literal["exact", "fast", "plain"]


class SpecError(WeighinError):
    """The spec is wrong; the message holds one line for each fault."""


class Base(BaseModel):
    """The model that every variant descends from: a hub id, a local directory, `reference:NAME`, or a server's."""

    model_config = ConfigDict(extra="forbid")

    model: str
    revision: str | None = None
    """Commit of a hub model; a branch moves."""
    dtype: Dtype = "auto"
    """What weights are loaded as; `auto` is what the checkpoint says."""
    allow: list[Literal["pickle", "remote_code"]] = []
    """Dangers taken knowingly: weights that need pickle, code that comes with the model."""
    endpoint: Endpoint | None = None
    """The server that `model: {endpoint: URL, name: NAME}` means; `model` is then what it is called for people."""

    @model_validator(mode="before")
    @classmethod
    def _served(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        if "endpoint" in value and not isinstance(value.get("model"), str):
            raise ValueError("a server stands below model: {endpoint: URL, name: NAME}")
        if not isinstance(value.get("model"), dict):
            return value
        return {**value, "model": str(value["model"].get("name")), "endpoint": value["model"]}


@dataclass(frozen=True)
class Step:
    """A stage and its full parameters, defaults included."""

    stage: str
    params: Mapping[str, Any]
    where: str
    """Its place in the spec, for messages."""


class _Document(BaseModel):
    """The file's own shape; plugins' parameters are checked afterwards against their signatures."""

    model_config = ConfigDict(extra="forbid")

    base: Base
    variants: dict[str, list[str | dict[str, Any]]] = {}
    suites: dict[str, dict[str, Any] | None] = Field(min_length=1)
    gate: GateText = GateText()
    front: FrontKey = FrontKey()
    seed: Annotated[int, Field(ge=0)] = 0
    scorer: Scorer = "exact"

    @field_validator("base", mode="before")
    @classmethod
    def _shorthand(cls, value: Any) -> Any:
        return {"model": value} if isinstance(value, str) else value

    @field_validator("gate", mode="before")
    @classmethod
    def _rules_only(cls, value: Any) -> Any:
        return {"rules": value} if isinstance(value, list) else value

    @field_validator("variants", mode="before")
    @classmethod
    def _one_step(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        if taken := [label for label in value if isinstance(label, bool) or label is None]:
            raise ValueError(f"YAML reads this label as {taken[0]}: put it in quotes")
        return {str(label): [steps] if isinstance(steps, str | dict) else steps for label, steps in value.items()}


@dataclass(frozen=True)
class Spec:
    """A checked spec. `chains` holds each variant's steps from the base on, `from:` resolved; `base` has none.

    `roots` names the model that a chain begins with instead of the base, by label.
    """

    name: str
    source: Mapping[str, Any]
    base: Base
    chains: Mapping[str, tuple[Step, ...]]
    roots: Mapping[str, str]
    suites: Mapping[str, Mapping[str, Any]]
    gate: tuple[Rule, ...]
    looks: tuple[int, ...]
    seed: int
    scorer: Scorer = "exact"
    """How texts are scored: `exact` and `fast` by common beginnings, `plain` one by one."""


def packaged() -> dict[str, Path]:
    """The specs that ship with the package, by name."""
    folder = Path(str(resources.files("weighin.harness"))) / "specs"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_spec_file(name: str) -> Path:
    """A path, or the name of a packaged spec."""
    path = Path(name)
    if path.is_file():
        return path
    if name in packaged():
        return packaged()[name]
    if path.is_dir():
        raise SpecError(f"{name}: is a directory; a spec is a YAML file")
    hint = registry.suggest(name, packaged())
    raise SpecError(f"{name}: no such file, and no packaged spec of that name. {hint}")


def read_spec(name: str) -> Spec:
    """Read and check the spec at a path or of a packaged name. Raises SpecError."""
    path = find_spec_file(name)
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise SpecError(f"{path}:{where} is not YAML: {getattr(error, 'problem', error)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: cannot be read: {error}") from None
    if not isinstance(document, dict):
        raise SpecError(
            f"{path}: a spec is a mapping with base, variants, suites, gate and front (got {_shown(document)})"
        )
    try:
        return parse_spec(document, path.stem)
    except SpecError as error:
        raise SpecError("\n".join(f"{path}: {line}" for line in str(error).splitlines())) from None


def parse_spec(document: Mapping[str, Any], name: str = "spec") -> Spec:
    """Check a spec that is already a mapping. Raises SpecError with a line for each fault."""
    faults: list[str] = []
    try:
        parsed = _Document.model_validate(document)
    except ValidationError as error:
        raise SpecError("\n".join(_faults(error, ""))) from None
    chains, roots = _chains(parsed, faults)
    suites = {
        name: _params("suite", name, params or {}, f"suites.{name}", parsed.seed, faults)
        for name, params in parsed.suites.items()
    }
    rules = list(checked_rules(parsed.gate, chains, suites, faults))
    faults.extend(parsed.front.faults(suites))
    if faults:
        raise SpecError("\n".join(faults))
    looks = tuple(parsed.gate.looks)
    source = dict(document)
    if parsed.variants:
        source["variants"] = {str(label): steps for label, steps in document["variants"].items()}  # 4: is a label, too
    return Spec(name, source, parsed.base, chains, roots, suites, tuple(rules), looks, parsed.seed, parsed.scorer)


def _chains(parsed: _Document, faults: list[str]) -> tuple[dict[str, tuple[Step, ...]], dict[str, str]]:
    chains: dict[str, tuple[Step, ...]] = {"base": ()}
    roots: dict[str, str] = {}
    for label, steps in parsed.variants.items():
        if label == "base":
            faults.append("variants.base: the name `base` is taken by the base itself")
            continue
        origin = steps[0].get("from") if steps and isinstance(steps[0], dict) and len(steps[0]) == 1 else None
        if origin in roots:
            roots[label] = roots[origin]
        elif isinstance(origin, str) and origin not in chains and _is_model(origin):
            roots[label] = origin
        chains[label] = tuple(_steps(label, steps, (chains, roots), parsed.seed, faults))
        if not chains[label]:
            faults.append(f"variants.{label}: no stage; a variant is a list of stages, `from:` may come first")
    return chains, roots


def _is_model(name: str) -> bool:
    """Whether a name looks like a model's and not like a variant's."""
    return name.startswith("reference:") or any(sign in name for sign in "/~.")


def _steps(
    label: str,
    steps: list[str | dict[str, Any]],
    above: tuple[Mapping[str, tuple[Step, ...]], Mapping[str, str]],
    seed: int,
    faults: list[str],
) -> Iterator[Step]:
    chains, roots = above
    for index, step in enumerate(steps):
        where = f"variants.{label}[{index}]"
        named = {step: None} if isinstance(step, str) else step
        if len(named) != 1:
            faults.append(
                f"{where}: one step is one `stage: {{parameters}}` (got {', '.join(map(str, named)) or 'none'})"
            )
            continue
        ((stage, params),) = named.items()
        if stage == "from":
            if index:
                faults.append(f"{where}: `from` comes first in its list")
            elif params not in chains and label not in roots:
                faults.append(
                    f"{where}.from: no variant {params!r} above this one, and no model (a hub id, a directory, "
                    f"reference:NAME). {registry.suggest(str(params), chains)}"
                )
            else:
                yield from chains.get(str(params), ())
        elif params is not None and not isinstance(params, dict):
            faults.append(f"{where}.{stage}: parameters are a mapping (got {_shown(params)})")
        else:
            checked = _params("stage", str(stage), params or {}, f"{where}.{stage}", seed, faults)
            made = Step(str(stage), checked, f"{where}.{stage}")
            faults.extend(_unknown_names(made, chains))
            yield made


def _unknown_names(step: Step, chains: Mapping[str, Any]) -> Iterator[str]:
    """Faults of parameters that name a variant: it stands above, or is a model."""
    for name in registry.stage(step.stage).references if step.params else ():
        given = step.params[name]
        for each in given if isinstance(given, list) else [given]:
            if each is not None and each not in chains and not _is_model(each):
                yield (
                    f"{step.where}.{name}: no variant {each!r} above this one, and no model (a hub id, a directory, "
                    f"reference:NAME). {registry.suggest(each, chains)}"
                )


def _params(
    kind: registry.Kind, name: str, params: Mapping[str, Any], where: str, seed: int, faults: list[str]
) -> dict[str, Any]:
    """Full parameters with defaults, as JSON values; faults are appended, not raised."""
    try:
        plugin = registry.load(kind, name)
    except WeighinError as error:
        faults.append(f"{where.removesuffix('.' + name)}: {error}")
        return {}
    schema = plugin.parameters
    given = {"seed": seed, **params} if "seed" in schema.model_fields else dict(params)
    try:
        checked: dict[str, Any] = schema.model_validate(given).model_dump(mode="json")
    except ValidationError as error:
        faults.extend(_faults(error, where, tuple(schema.model_fields)))
        return {}
    absent = registry.absent(plugin)
    if absent:
        faults.append(f"{where}: {name} needs {', '.join(absent)}: {registry.install_command(absent)}")
    return checked


def _faults(error: ValidationError, where: str, allowed: tuple[str, ...] = ()) -> Iterator[str]:
    """pydantic's errors as lines of `path: what is wrong (got value)`; union branches of one fault are one line."""
    said: set[str] = set()
    for fault in error.errors(include_url=False, include_context=False):
        path = where
        for part in fault["loc"]:
            if isinstance(part, int):
                path += f"[{part}]"
            elif part not in ("str", "dict[str,any]", "function-before[_shorthand()]"):
                path += f".{part}" if path else str(part)
        path = path.replace("gate.rules[", "gate[")  # a list of rules is the usual form
        path = path.replace("base.endpoint.", "base.model.")
        if path in said:
            continue
        said.add(path)
        got = "" if fault["type"] == "missing" else f" (got {_shown(fault['input'])})"
        message = fault["msg"].replace("'", "")
        if fault["type"] == "extra_forbidden":
            names = allowed or tuple(_Document.model_fields)
            message, got = f"no such parameter. {registry.suggest(str(fault['loc'][-1]), names)}", ""
        yield f"{path}: {message}{got}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
