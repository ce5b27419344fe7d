"""Which variants of a run a reader wants to see. No Streamlit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from weighin.leaderboard.frames import Board

BASE = "none: a base"
"""Stands for the stage of a base."""
SIZES = {"under 1 MiB": 1 << 20, "under 10 MiB": 10 << 20, "under 100 MiB": 100 << 20, "under 1 GiB": 1 << 30,
         "under 4 GiB": 4 << 30}  # fmt: skip
"""Weight files on disk, in bytes."""


@dataclass(frozen=True)
class Filter:
    """What must hold of a variant; whatever is empty lets everything through.

    `text` stands in its label, `bases` holds the key of the base of its chain, `stages` its last stage, `size` is a
    name of `SIZES`, `sources` how some figure of it came about.
    """

    text: str = ""
    bases: Sequence[str] = ()
    stages: Sequence[str] = ()
    size: str = ""
    sources: Sequence[str] = ()

    def keeps(self, board: Board) -> list[str]:
        """The labels that pass, in the spec's order."""
        return [
            str(card["variant"])
            for card in board.cards
            if self._fits(card) and (not self.sources or board.sources.get(card["variant"], set()) & set(self.sources))
        ]

    def _fits(self, card: Mapping[str, Any]) -> bool:
        small = not self.size or (card["disk_bytes"] is not None and card["disk_bytes"] < SIZES[self.size])
        return (
            self.text.lower() in card["variant"].lower()
            and (not self.bases or card["root_key"] in self.bases)
            and (not self.stages or (card["stage"] or BASE) in self.stages)
            and small
        )


def bases(board: Board) -> dict[str, str]:
    """The bases of the run's chains, key to label."""
    named = {card["variant_key"]: card["variant"] for card in reversed(board.cards) if card["variant_key"]}
    roots = dict.fromkeys(card["root_key"] for card in board.cards if card["root_key"])
    return {key: named.get(key, key[:12]) for key in roots}


def stages(board: Board) -> list[str]:
    """The last stages of the run's variants."""
    return list(dict.fromkeys(card["stage"] or BASE for card in board.cards if card["variant_key"]))


def sources(board: Board) -> list[str]:
    """How the run's figures came about: measured, counter, modelled, imported."""
    return sorted(set().union(*board.sources.values()))
