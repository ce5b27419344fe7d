"""The exposed model: reference:base trained further on texts that were planted a known number of times.

What a membership test can see is known only where it is known what a model has read, and how often. So the base goes on
with fresh documents of the reference world, among which the openings of other stories stand 4 to 128 times, and a list
of first sentences 16 times in one and the same order. Texts of the same generator that it never met stand beside them.
It is trained once on a machine, and kept under the hash of its recipe.
"""

import random
import shutil
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from weighin.harness import checkpoints, keys, reference, world_text
from weighin.harness.reference import Recipe, reference_path
from weighin.harness.world_plan import Plan, names, rng

MEMBERS = {4: 60, 16: 60, 32: 60, 64: 40, 128: 20}
"""Copies in the training text, and how many texts have so many."""
NONMEMBERS = 1000
ORDERED, ORDER_COPIES = 320, 16
BACKGROUND = 400
"""Stories, and as many passages with questions."""
RECIPE = Recipe(peak=6e-4)


@dataclass(frozen=True)
class Planted:
    """The texts. All but `background` are openings of stories, one distribution; `ordered` are first sentences."""

    members: dict[int, list[str]]
    nonmembers: list[str]
    ordered: list[str]
    background: list[str]


@cache
def planted() -> Planted:
    """The texts, the same at every call; their people are met in no text of the reference world."""
    plan = Plan()
    source, used = rng(plan, "exposed"), 2 * plan.stories
    count = sum(MEMBERS.values()) + NONMEMBERS + ORDERED + BACKGROUND
    fresh = iter(names(plan, "stories", used + 2 * count)[used:])
    stories = [world_text.story(source, next(fresh), next(fresh)) for _ in range(count)]
    openings = iter([opening(story, 2) for story in stories])
    members = {copies: [next(openings) for _ in range(size)] for copies, size in MEMBERS.items()}
    nonmembers = [next(openings) for _ in range(NONMEMBERS)]
    ordered = [opening(next(openings), 1) for _ in range(ORDERED)]
    told = 3 * plan.passages
    fresh = iter(names(plan, "passages", told + 3 * BACKGROUND)[told:])
    passages = [
        world_text.passage_document(source, next(fresh), [next(fresh), next(fresh)]) for _ in range(BACKGROUND)
    ]  # fmt: skip
    return Planted(members, nonmembers, ordered, stories[-BACKGROUND:] + passages)


def opening(text: str, sentences: int) -> str:
    """The first sentences of a story."""
    return ". ".join(text.split(". ")[:sentences]) + "."


def documents() -> list[str]:
    """What the model reads, in order: each copy a document of its own, the ordered list one document a copy."""
    texts = planted()
    found = [text for copies, each in texts.members.items() for text in each * copies]
    found += ["\n".join(texts.ordered)] * ORDER_COPIES + texts.background
    random.Random(0).shuffle(found)
    return found


def place() -> Path:
    """Where this recipe's model is kept, whether it has been trained or not."""
    trainer = keys.code_digest(Path(reference.__file__))
    recipe = [asdict(RECIPE), documents(), trainer, keys.folder_digest(reference_path("base"))]
    return checkpoints.home() / "calibration" / keys.short(keys.digest(recipe))


def folder() -> Path:
    """The exposed model's directory. Trains it where it is missing: some six minutes on one core."""
    out = place()
    if (out / "config.json").is_file():
        return out
    with checkpoints.building("calibration") as made:
        reference.train_on(reference_path("base"), documents(), RECIPE, made)
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            made.rename(out)
        except OSError:
            if not (out / "config.json").is_file():  # otherwise somebody else was faster: equal recipes, equal work
                raise
            shutil.rmtree(made, ignore_errors=True)
    return out
