"""Run calibration documents through a model, for whatever hooks watch it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from weighin.adapters._calibrate import Calibration
from weighin.adapters._hf import fit, load_tokenizer
from weighin.harness.text import documents, encode

if TYPE_CHECKING:
    import torch

Watch = Callable[["torch.Tensor", "torch.Tensor"], None]
"""Called with what a module was given and what it made of it, each (tokens, features)."""


class Fed(NamedTuple):
    """How many tokens a model has read, and its mean loss over them, nats."""

    tokens: int
    loss: float


def feed(model: Any, source: Path, text: Calibration, watches: Mapping["torch.nn.Module", Watch]) -> Fed:
    """Show the model each document once, and each watch what its module does.

    One document is one sequence: no padding, so no padded position enters the statistics.
    """
    import torch
    from tqdm import tqdm

    texts = documents(text.data, samples=text.samples, seed=text.seed)
    rows = encode(load_tokenizer(source), texts, fit(model, text.max_length))
    home = model.device
    model.to("cuda" if torch.cuda.is_available() else home)
    loss = 0.0
    with torch.no_grad(), _watched(watches):
        for row in tqdm(rows, desc="calibrate", unit="document"):
            ids = torch.tensor([row], device=model.device)
            loss += model(input_ids=ids, labels=ids, use_cache=False).loss.item() * (len(row) - 1)
    model.to(home)
    return Fed(sum(map(len, rows)), loss / sum(len(row) - 1 for row in rows))


@contextmanager
def _watched(watches: Mapping["torch.nn.Module", Watch]) -> Iterator[None]:
    handles = [module.register_forward_hook(_hook(watch), with_kwargs=True) for module, watch in watches.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hook(watch: Watch) -> Callable[..., None]:
    def hook(_: Any, given: tuple[Any, ...], named: dict[str, Any], made: Any) -> None:
        first = given[0] if given else named["hidden_states"]
        watch(first.flatten(0, -2), (made[0] if isinstance(made, tuple) else made).flatten(0, -2))

    return hook
