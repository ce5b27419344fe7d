"""A model behind a server: what is known of it, and the checkpoint directory that stands for it.

Its bytes cannot be hashed. Its key is what can be known from outside: the address, the name, what the server lists
under that name, the fingerprint it gives of itself, and what it answers to a few prompts, greedily. All of it is asked
anew by every plan, so an answer kept under the key is one of a server that still says the same. Two models that answer
these prompts alike (another rounding of the same weights may) are not told apart: give them names of their own.
"""

import json
import os
import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field

from weighin.harness import checkpoints, keys
from weighin.harness.endpoint_client import Client, EndpointError
from weighin.harness.plugin import Checkpoint
from weighin.results.errors import WeighinError

FILE = "endpoint.json"
PROBES = (
    "The capital of France is",
    "def add(a, b):\n    return",
    "Once upon a time there was",
    "7 times 8 is",
)
PROBE_TOKENS = 24
TIMELY = {"created", "permission", "loaded", "status", "state"}
"""What a listing says of a moment and not of the model; vLLM makes the first two anew for each request."""
TOKENIZER = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.model")


class Endpoint(BaseModel):
    """An OpenAI-compatible server as a spec names it."""

    model_config = ConfigDict(extra="forbid")

    endpoint: str
    """Its address up to `/v1`. No credentials in it."""
    name: Annotated[str, Field(min_length=1)]
    """What it calls the model."""
    key: str | None = None
    """The NAME of the environment variable that holds the key."""
    tokenizer: str | None = None
    """A hub id, a directory or `reference:NAME` with the model's tokenizer: without one no text is scored."""
    concurrency: Annotated[int, Field(ge=1, le=1024)] = 4
    """Requests at a time."""
    timeout: Annotated[float, Field(gt=0)] = 60.0
    """Seconds for an answer, or between two pieces of one."""
    tries: Annotated[int, Field(ge=1, le=20)] = 5
    window: Annotated[int, Field(gt=1)] | None = None
    """Longest context, tokens, where the server does not list it."""

    @property
    def shown(self) -> str:
        """For people: no part that might be secret."""
        at = urlsplit(self.endpoint)
        return f"{self.name} at {at.hostname or '?'}"


def settled(folder: Path) -> bool:
    """Whether a checkpoint directory stands for a server."""
    return (folder / FILE).is_file()


def client(endpoint: Endpoint) -> Client:
    """A client of the server. Raises WeighinError for an address or a key that cannot be right, quoting neither."""
    try:
        at = urlsplit(endpoint.endpoint)
        port = at.port
    except ValueError:
        raise WeighinError("endpoint: is no address; write http://HOST:PORT/v1") from None
    if at.scheme not in ("http", "https") or not at.hostname:
        raise WeighinError("endpoint: is no address; write http://HOST:PORT/v1 or https://HOST/v1")
    if at.username or at.password or at.query or at.fragment:
        raise WeighinError(
            "endpoint: an address holds no credentials, no query and no fragment. Put the key into an environment "
            "variable and name it: key: NAME_OF_THE_VARIABLE"
        )
    host = f"[{at.hostname}]" if ":" in at.hostname else at.hostname
    url = f"{at.scheme}://{host}{f':{port}' if port else ''}{at.path.rstrip('/') or '/v1'}"
    return Client(url, _key(endpoint), endpoint.concurrency, endpoint.timeout, endpoint.tries)


def _key(endpoint: Endpoint) -> str:
    if endpoint.key is None:
        return ""
    if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", endpoint.key):
        raise WeighinError("key: is the NAME of an environment variable, in capitals, and not the key itself")
    value = os.environ.get(endpoint.key, "").strip()
    if not value:
        raise WeighinError("key: the environment variable that it names is not set")
    if not value.isascii() or not value.isprintable() or len(value) < 4:
        raise WeighinError("key: the environment variable that it names holds no key: it is too short, or not ASCII")
    return value


def settle(endpoint: Endpoint, tokenizer: Path | None) -> Checkpoint:
    """Ask the server what it is, and keep that as a checkpoint directory with the tokenizer's files in it.

    Raises WeighinError where it does not answer.
    """
    began, asked = time.monotonic(), client(endpoint)
    with checkpoints.building("endpoint") as folder:
        if tokenizer is not None:
            _copy_tokenizer(tokenizer, folder)
        said = {
            **endpoint.model_dump(exclude={"tokenizer"}),
            "endpoint": asked.url,
            "known": look(asked, endpoint.name),
            "code": keys.code_digest(Path(__file__).with_name("endpoint_model.py")),
        }
        (folder / FILE).write_text(json.dumps(said, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        key = keys.folder_digest(folder)
        made = {
            "made_at": datetime.now(UTC).isoformat(), "seconds": time.monotonic() - began, "peak_bytes": None,
            "identity": {"machine": None},  # its weights are not ours to look at
        }  # fmt: skip
        return checkpoints.find(key) or checkpoints.publish(folder, key, made)


def look(asked: Client, name: str) -> dict[str, Any]:
    """What can be known of a model from outside: its listing, its own fingerprint, its answers to the probes."""
    first = asked.post("completions", probe(name, PROBES[0]))
    return {
        "listed": _listed(asked, name),
        "fingerprint": first.get("system_fingerprint"),
        "probes": [text_of(first), *answers(asked, name, PROBES[1:])],
    }


def answers(asked: Client, name: str, prompts: tuple[str, ...] = PROBES) -> list[str]:
    """Greedy answers, asked for one after the other: servers may round otherwise in company."""
    return [text_of(asked.post("completions", probe(name, prompt))) for prompt in prompts]


def probe(name: str, prompt: str) -> dict[str, Any]:
    """A request for a greedy answer."""
    return {"model": name, "prompt": prompt, "max_tokens": PROBE_TOKENS, "temperature": 0, "seed": 0}


def text_of(answer: Mapping[str, Any]) -> str:
    """The text of a completion. Raises EndpointError for an answer that has none."""
    try:
        text = answer["choices"][0]["text"]
    except (LookupError, TypeError):
        text = None
    if not isinstance(text, str):
        raise EndpointError("the server's answer is no completion: it has no choices[0].text")
    return text


def _listed(asked: Client, name: str) -> dict[str, Any] | None:
    """The server's entry for the model; None where it lists nothing of that name, or cannot list."""
    try:
        entries = replace(asked, tries=1).get("models").get("data")
    except EndpointError:
        return None
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict) and entry.get("id") == name:
            return {field: value for field, value in entry.items() if field not in TIMELY}
    return None


def _copy_tokenizer(source: Path, out: Path) -> None:
    found = {path for pattern in TOKENIZER for path in source.glob(pattern) if path.is_file()}
    if not found:
        raise WeighinError(f"tokenizer: {source} holds no tokenizer")
    for path in found:
        shutil.copyfile(path, out / path.name)
