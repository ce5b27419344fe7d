"""A model behind a server as suites see it: it gives text, and log-probabilities of given tokens where the server does.

What needs the weights, the whole vocabulary's predictions or the process itself abstains.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, NoReturn, cast

from weighin.harness.endpoint import FILE, Endpoint, answers, client, text_of
from weighin.harness.endpoint_client import EndpointError, Refused
from weighin.harness.model import Loading, TransformersModel
from weighin.harness.plugin import Abstain, Checkpoint, Model
from weighin.harness.scorer import Scored
from weighin.harness.serving import Serving
from weighin.results.errors import WeighinError

TRIAL = "The keeper counts seven blue stones near the river."
WINDOW = 2048
"""Tokens of context where neither the server nor the spec says."""


class Arrivals(NamedTuple):
    """A streamed answer: seconds from the request at which each piece came, and its tokens by the server's count."""

    pieces: list[float]
    tokens: int | None


@dataclass
class EndpointModel:
    """Implements `Model` as far as a server does."""

    checkpoint: Checkpoint
    relatives: Mapping[str, Checkpoint] = field(default_factory=dict)
    loading: Loading = field(default_factory=Loading)

    def __post_init__(self) -> None:
        said = json.loads((self.checkpoint.path / FILE).read_text(encoding="utf-8"))
        self.known: Mapping[str, Any] = said["known"]
        self.endpoint = Endpoint(**{name: said[name] for name in Endpoint.model_fields if name in said})
        self.client = client(self.endpoint)
        self.served, self.serving, self.draft = Serving(), dict[str, Any](), None
        self.rss_before: int | None = None
        self.runtime: Any = None
        self.scoring: Any = None
        self._kin: dict[str, Model | None] = {}
        self._tokenizer: Any = None
        self._unable: str | None = None
        self.still("planned")

    def still(self, since: str) -> None:
        """Raises WeighinError where the server answers otherwise than it did when the run was planned."""
        if answers(self.client, self.endpoint.name) != self.known["probes"]:
            raise WeighinError(
                f"{self.endpoint.shown} answers otherwise than when the run was {since}: another model is behind the "
                "name now, or it does not answer greedily; run again"
            )

    # -- what a server cannot show ------------------------------------------------------------------------------

    @property
    def module(self) -> Any:
        self._cannot("its weights and its modules are out of sight")

    def logprobs(self, batch: list[list[int]]) -> Any:
        self._cannot("it does not give predictions over the whole vocabulary")

    def weight_bytes(self) -> int:
        self._cannot("the bytes it takes are another process's")

    def _cannot(self, why: str) -> NoReturn:
        raise Abstain(f"the model is behind a server: {why}")

    # -- text ---------------------------------------------------------------------------------------------------

    @property
    def tokenizer(self) -> Any:
        if self._tokenizer is None:
            if not any(self.checkpoint.path.glob("tokenizer*")):
                self._cannot("its tokenizer is not known; name one: tokenizer: HUB_ID_OR_DIRECTORY")
            from transformers import AutoTokenizer

            self._tokenizer = AutoTokenizer.from_pretrained(str(self.checkpoint.path))
        return self._tokenizer

    @property
    def window(self) -> int:
        listed = self.known["listed"] or {}
        meta = listed.get("meta") if isinstance(listed.get("meta"), dict) else {}
        return int(self.endpoint.window or listed.get("max_model_len") or (meta or {}).get("n_ctx") or WINDOW)

    def encode(self, text: str) -> list[int]:
        return list(self.tokenizer(text).input_ids)

    def generate(self, prompts: list[str], *, max_new_tokens: int, stop: Sequence[str] = ()) -> list[str]:
        """Greedy continuations; `stop` ends one, and is no part of it."""
        body = {"max_tokens": max_new_tokens, "temperature": 0, "seed": 0, **({"stop": list(stop[:4])} if stop else {})}
        found = self.client.all("completions", [self._body(prompt=prompt, **body) for prompt in prompts], "answers")
        return [_cut(text_of(answer), stop) for answer in found]

    def stream(self, prompt: str, new_tokens: int) -> Arrivals:
        """Ask for a streamed continuation of at most so many tokens. Abstains where none comes."""
        body = self._body(prompt=prompt, max_tokens=new_tokens, temperature=0)
        try:
            events = self.client.stream("completions", {**body, "stream_options": {"include_usage": True}})
        except Refused:  # some servers count without being asked, and know no such option
            events = self.client.stream("completions", body)
        pieces = [at for at, event in events if any(each.get("text") for each in event.get("choices") or ())]
        counts = [event["usage"].get("completion_tokens") for _, event in events if event.get("usage")]
        if not pieces:
            raise Abstain("the server streams no text")
        return Arrivals(pieces, counts[-1] if counts else None)

    # -- scores -------------------------------------------------------------------------------------------------

    def scores(self, asked: Sequence[tuple[Sequence[int], int]]) -> list[Scored]:
        """The last `count` tokens of each row of ids. Abstains where the server does not echo log-probabilities."""
        if reason := self.unable():
            raise Abstain(reason)
        bodies = [self._scoring(row) for row, _ in asked]
        found = self.client.all("completions", bodies, "texts")
        return [_scored(answer, len(row), count) for answer, (row, count) in zip(found, asked, strict=True)]

    def unable(self) -> str:
        """Why the server cannot score given text; empty where it can. Asked once."""
        if self._unable is None:
            try:
                row = self.encode(TRIAL)
                _scored(self.client.post("completions", self._scoring(row)), len(row), len(row) - 1)
                self._unable = ""
            except Abstain as error:
                self._unable = str(error)
            except EndpointError as error:
                self._unable = f"the server does not give log-probabilities of a given text: {error}"
        return self._unable

    def _scoring(self, row: Sequence[int]) -> dict[str, Any]:
        return self._body(prompt=list(row), max_tokens=1, temperature=0, logprobs=1, echo=True, seed=0)

    def _body(self, **given: Any) -> dict[str, Any]:
        return {"model": self.endpoint.name, **given}

    def relative(self, which: Literal["parent", "root"]) -> Model | None:
        """The checkpoint that the server is said to serve, loaded here."""
        if which not in self._kin:
            kin = self.relatives.get(which)
            same = next((m for m in self._kin.values() if m and kin and m.checkpoint.key == kin.key), None)
            self._kin[which] = same or (cast(Model, TransformersModel(kin, {}, self.loading)) if kin else None)
        return self._kin[which]


def _cut(text: str, stop: Sequence[str]) -> str:
    for each in stop:
        text = text.split(each)[0] if each else text
    return text


def _scored(answer: Mapping[str, Any], given: int, count: int) -> Scored:
    """The last `count` of `given` echoed tokens. Raises EndpointError where the answer does not tell of them."""
    try:
        found = answer["choices"][0]["logprobs"]
        each, best = found["token_logprobs"], found["top_logprobs"]
        places = range(given - count, given)
        logprobs = [float(each[place]) for place in places]
        greedy = [logprobs[n] >= max(best[place].values()) - 1e-6 for n, place in enumerate(places)]
    except (LookupError, TypeError, ValueError, AttributeError):
        raise EndpointError("its answer holds no log-probabilities of the prompt's tokens (echo, logprobs)") from None
    if len(each) - given not in (0, 1):  # with the one token that it was asked to add
        raise EndpointError(f"it reads {len(each)} tokens where {given} were sent: its tokens are others")
    return Scored(tuple(logprobs), tuple(greedy))
