"""The contracts of a plugin: the nouns it sees and the two decorators. Imports nothing heavy."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    Literal,
    NewType,
    ParamSpec,
    Protocol,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from weighin.harness.outline import Outline, mark, read
from weighin.results.errors import WeighinError
from weighin.results.records import Metric, Sample

if TYPE_CHECKING:
    from pydantic import BaseModel

    from weighin.harness.endpoint import Endpoint
    from weighin.harness.runtime import Opens, Runtime
    from weighin.harness.serving import Serving

P = ParamSpec("P")
Reads = Callable[[Mapping[str, Any]], Iterable[Path]]
Foresee = Callable[[Outline, Mapping[str, Any]], Outline]


class Abstain(WeighinError):
    """Raised by a suite that cannot measure here; the message is the reason that is kept."""


@dataclass(frozen=True)
class Checkpoint:
    """A directory of weights in the Hugging Face layout that never changes, and its content key."""

    path: Path
    key: str


class Model(Protocol):
    """A checkpoint, reloaded from disk and ready to be measured."""

    checkpoint: Checkpoint
    module: Any
    """The `transformers` model, for suites that hand it to a library."""
    tokenizer: Any
    """The `transformers` tokenizer."""
    rss_before: int | None
    """Resident bytes of this process just before the weights were read; None where the system does not tell."""
    runtime: "Runtime | None"
    """What computes it where that is not PyTorch. `module` is then no `torch.nn.Module`."""

    served: "Serving"
    """How this variant is served."""
    serving: Mapping[str, Any]
    """Keyword arguments of `module.generate` that serve it so, the draft model among them."""
    endpoint: "Endpoint | None"
    """The server it is behind; None for one in this process. What a server does not show makes a suite abstain."""
    draft: Any
    """The draft model's `transformers` model; None without one."""

    @property
    def window(self) -> int:
        """Longest context, tokens."""
        ...

    def encode(self, text: str) -> list[int]:
        """Token ids of `text` as the model was trained to read it (with BOS where its tokenizer adds one)."""
        ...

    def logprobs(self, batch: list[list[int]]) -> Any:
        """Next-token log-probabilities, nats: float32 tensor (row, position, vocabulary), right-padded."""
        ...

    def generate(self, prompts: list[str], *, max_new_tokens: int) -> list[str]:
        """Continuations the way the variant is served, without the prompts; greedy unless it says otherwise."""
        ...

    def relative(self, which: Literal["parent", "root"]) -> "Model | None":
        """The checkpoint this one was made from, or the base of its chain; None for a base."""
        ...

    def weight_bytes(self) -> int:
        """Resident bytes of weights and buffers, shared storage counted once."""
        ...


Name = NewType("Name", str)
"""What a checkpoint is called in YAML: another variant's label, or a model."""


def parameters_of(call: Callable[..., Any]) -> "type[BaseModel]":
    """The pydantic schema of a plugin's keyword-only arguments, which are its YAML parameters.

    A `Checkpoint` is given by name in YAML: another variant's label or a model. An argument whose name would be a
    Python keyword ends in an underscore (`with_`), which YAML leaves out.
    """
    from pydantic import ConfigDict, create_model

    hints = get_type_hints(call, include_extras=True)
    fields: dict[str, Any] = {
        p.name.rstrip("_"): (_named(hints[p.name]), ... if p.default is p.empty else p.default)
        for p in inspect.signature(call).parameters.values()
        if p.kind is p.KEYWORD_ONLY
    }
    return create_model(call.__name__, __config__=ConfigDict(extra="forbid", strict=False), **fields)


def _named(hint: Any) -> Any:
    """A type with `Name` in the place of every `Checkpoint`."""
    if hint is Checkpoint:
        return Name
    origin, inner = get_origin(hint), get_args(hint)
    if not _mentions(hint):
        return hint
    if hasattr(hint, "__metadata__"):
        from typing import Annotated

        return Annotated[(_named(inner[0]), *hint.__metadata__)]
    if origin is list:
        return list[_named(inner[0])]  # type: ignore[misc]
    return Union[tuple(_named(part) for part in inner)]  # noqa: UP007  (the parts are known at run time only)


def _outlined(value: Any) -> Any:
    """A parameter as `foresee` sees it: checkpoints as their outlines."""
    if isinstance(value, list):
        return [_outlined(each) for each in value]
    return read(value.path) if isinstance(value, Checkpoint) else value


def _mentions(hint: Any) -> bool:
    return hint is Checkpoint or any(_mentions(part) for part in get_args(hint))


@dataclass(frozen=True)
class Stage(Generic[P]):
    """A function that writes a new checkpoint, made from `parent`, into the empty directory `out`."""

    call: Callable[Concatenate[Checkpoint, Path, P], None]
    needs: tuple[str, ...]
    reads: Reads | None
    changes: Literal["weights", "serving", "runtime"]
    example: Mapping[str, Any]
    foresee: Foresee | None
    environment: str = ""
    opens: "Opens | None" = None

    def __call__(self, parent: Checkpoint, out: Path, *args: P.args, **kwargs: P.kwargs) -> None:
        if self.foresee:
            bound = inspect.signature(self.call).bind(parent, out, *args, **kwargs)
            bound.apply_defaults()
            self.foresee(read(parent.path), {n.rstrip("_"): _outlined(v) for n, v in bound.kwargs.items()})
        self.call(parent, out, *args, **kwargs)
        if self.opens:
            mark(out, self.call.__name__.rstrip("_"))

    @property
    def parameters(self) -> "type[BaseModel]":
        return parameters_of(self.call)

    @property
    def references(self) -> tuple[str, ...]:
        """The parameters that name other checkpoints."""
        hints = get_type_hints(self.call, include_extras=True)
        return tuple(name.rstrip("_") for name, hint in hints.items() if name != "parent" and _mentions(hint))


@dataclass(frozen=True)
class Suite(Generic[P]):
    """A function that measures a model and yields samples."""

    call: Callable[Concatenate[Model, P], Iterator[Sample]]
    metrics: tuple[Metric, ...]
    needs: tuple[str, ...]
    reads: Reads | None
    example: Mapping[str, Any]

    def __call__(self, model: Model, *args: P.args, **kwargs: P.kwargs) -> Iterator[Sample]:
        return self.call(model, *args, **kwargs)

    @property
    def parameters(self) -> "type[BaseModel]":
        return parameters_of(self.call)

    @property
    def alone(self) -> bool:
        """Whether it measures times, bytes or joules, and so has a machine for itself while it does."""
        return any(metric.runtime for metric in self.metrics)


def stage(
    *,
    needs: tuple[str, ...] = (),
    reads: Reads | None = None,
    changes: Literal["weights", "serving", "runtime"] = "weights",
    example: Mapping[str, Any] | None = None,
    foresee: Foresee | None = None,
    environment: str = "",
    opens: "Opens | None" = None,
) -> Callable[[Callable[Concatenate[Checkpoint, Path, P], None]], Stage[P]]:
    """Make a stage of a function `(parent, out, *, parameters)`.

    `needs` names the packages it imports: their versions enter the key, a missing one is reported with the command
    that installs it. `reads(parameters)` names the files whose content enters the key. `changes` says whether the
    weights must differ from the parent's; one that changes only how the model is served says `"serving"`. `example`
    holds parameters for a quick trial, which its contract test uses. `foresee(outline, parameters)` tells from the
    parent's outline what the stage will make of it, or raises WeighinError where it cannot work: that is what `plan`
    refuses. Parameters that name checkpoints come to it as their outlines.

    A stage whose libraries do not go with ours names an `environment`: the pinned list `environments/NAME.txt` beside
    its file, which `weighin setup NAME` installs. It runs there, `needs` are looked for there, and the versions in the
    key are the list's. One whose checkpoint another runtime than PyTorch computes with has `changes="runtime"` and says
    with `opens(folder)` how it is opened (`runtime.Runtime`); that, too, happens in its environment.
    """

    def wrap(call: Callable[Concatenate[Checkpoint, Path, P], None]) -> Stage[P]:
        return Stage(call, needs, reads, changes, example or {}, foresee, environment, opens)

    return wrap


def suite(
    *metrics: Metric, needs: tuple[str, ...] = (), reads: Reads | None = None, example: Mapping[str, Any] | None = None
) -> Callable[[Callable[Concatenate[Model, P], Iterator[Sample]]], Suite[P]]:
    """Make a suite of a generator `(model, *, parameters)`.

    `metrics` are those known beforehand; a sample may bring one of its own. Where one of them is of the runtime (times,
    bytes, joules), the suite has the machine for itself; others share it. `needs`, `reads` and `example` are as for a
    stage.
    """

    def wrap(call: Callable[Concatenate[Model, P], Iterator[Sample]]) -> Suite[P]:
        return Suite(call, metrics, needs, reads, example or {})

    return wrap
