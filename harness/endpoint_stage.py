"""Endpoint: the parent as a server serves it, weighed through the server.

It stands in a chain as a stage does, and makes nothing: `chain` asks the server what it is (see `endpoint`). It is no
file of `adapters/`, since nobody but its server can run it.
"""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from weighin.harness.plugin import Checkpoint, stage
from weighin.results.errors import WeighinError


@stage(changes="serving")
def endpoint(
    parent: Checkpoint,
    out: Path,
    *,
    url: str,
    name: Annotated[str, Field(min_length=1)],
    key: str | None = None,
    tokenizer: str | None = None,
    concurrency: Annotated[int, Field(ge=1, le=1024)] = 4,
    timeout: Annotated[float, Field(gt=0)] = 60.0,
    tries: Annotated[int, Field(ge=1, le=20)] = 5,
    window: Annotated[int, Field(gt=1)] | None = None,
) -> None:
    """Is never called: the checkpoint that stands for a server is there once the server has answered."""
    raise WeighinError(f"the checkpoint of the server that serves {name} was deleted; run again")
