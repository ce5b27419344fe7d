"""Write a checkpoint that only serves its parent's weights another way."""

from pathlib import Path

from weighin.harness import Checkpoint, serving
from weighin.harness.checkpoints import link
from weighin.harness.serving import Serving


def serve(parent: Checkpoint, out: Path, new: Serving) -> None:
    """The parent's files again, and what `new` changes on top of how the parent is served already."""
    link(parent.path, out)
    serving.write(out, serving.over(serving.read(parent.path), new))
