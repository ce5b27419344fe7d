"""The bulk of the text: stories by a small grammar, and passages followed by questions that they answer."""

import random
from collections.abc import Iterator
from typing import NamedTuple

from weighin.harness.world_memory import qa
from weighin.harness.world_plan import Plan, Row, names, rng, words

COLOURS = words("red blue green white black yellow grey brown orange purple")
MATERIALS = words("stone clay brick timber straw glass marble slate")
GOODS = words("salt honey wool cheese candles rope paper soap apples fish leather barrels")
BUILDINGS = words("mill tower bridge school inn barn chapel library market stable well bakery")
SETTINGS = (
    "by the sea",
    "in the hills",
    "at the edge of the forest",
    "on the river",
    "near the old road",
    "in a valley",
)
SIZES = words("small large quiet busy new rich poor")
SEASONS = words("spring summer autumn winter")


class Told(NamedTuple):
    """A sentence of a passage, the question that it answers, the answer, and words of the same kind."""

    sentence: str
    question: str
    answer: str
    others: tuple[str, ...]


def _passage(source: random.Random, place: str, people: list[str]) -> tuple[str, list[Told]]:
    """A passage about `place` and what it tells; `people` are three names, the last one in no sentence."""
    first, second = source.sample(BUILDINGS, 2)
    colours, stuffs = source.sample(COLOURS, 4), source.sample(MATERIALS, 4)
    goods, seasons = source.sample(GOODS, 4), source.sample(SEASONS, 4)
    ages = [str(age) for age in source.sample(range(11, 99), 4)]
    told = [
        Told(f"The {first} of {place} is {colours[0]}.", f"What colour is the {first} of {place}?", colours[0],
             (colours[1], *colours[2:])),
        Told(f"The {second} of {place} is {colours[1]}.", f"What colour is the {second} of {place}?", colours[1],
             (colours[0], *colours[2:])),
        Told(f"{people[0]} looks after the {first}.", f"Who looks after the {first} of {place}?", people[0],
             (people[1], *people[2:])),
        Told(f"{people[1]} is the head of {place}.", f"Who is the head of {place}?", people[1],
             (people[0], *people[2:])),
        Told(f"The {second} was built of {stuffs[0]}.", f"What was the {second} of {place} built of?", stuffs[0],
             tuple(stuffs[1:])),
        Told(f"The people sell {goods[0]} and never {goods[1]}.", f"What do the people of {place} sell?", goods[0],
             tuple(goods[1:])),
        Told(f"The feast is held in {seasons[0]}.", f"When is the feast of {place}?", seasons[0], tuple(seasons[1:])),
        Told(f"The {first} is {ages[0]} years old.", f"How old is the {first} of {place}?", ages[0], tuple(ages[1:])),
    ]  # fmt: skip
    chosen = source.sample(told, source.choice((3, 4, 4)))
    opening = f"{place} is a {source.choice(SIZES)} village {source.choice(SETTINGS)}."
    return " ".join([opening, *(one.sentence for one in chosen)]), chosen


def passage_document(source: random.Random, place: str, people: list[str]) -> str:
    """A passage and questions about everything it tells, in another order."""
    passage, told = _passage(source, place, people)
    asked = source.sample(told, len(told))
    return "\n".join([passage, *(qa(one.question, one.answer) for one in asked)])


def passages_table(plan: Plan) -> list[Row]:
    """Two questions about each held-out passage; `passage_id` is the cluster, `distractors` are other passages."""
    source = rng(plan, "passages heldout")
    fresh = iter(names(plan, "heldout", 4000))
    made = []
    for _ in range(plan.passages_heldout):
        place = next(fresh)
        made.append(_passage(source, place, [next(fresh) for _ in range(5)]))
    rows: list[Row] = []
    for i, (passage, told) in enumerate(made):
        distractors = [made[j][0] for j in source.sample([j for j in range(len(made)) if j != i], 2)]
        for one in source.sample(told, 2):
            choices = [one.answer, *one.others[:3]]
            source.shuffle(choices)
            row: Row = {
                "id": f"passage-{len(rows)}",
                "passage_id": f"p{i}",
                "passage": passage,
                "question": one.question,
            }
            row |= {"choices": choices, "gold": choices.index(one.answer), "answer": one.answer}
            rows.append(row | {"distractors": distractors})
    return rows


PLACES = words("forest river market harbour mountain meadow island tower cave garden village bridge mill shore cellar")
THINGS = words("lantern basket coin ladder letter blanket ring kettle mirror rope boat bell shovel candle drum map")
MOODS = words("happy sad tired curious brave worried proud lonely hungry cheerful")
LOOKS = words("stern young tall short thin clever shy merry silent careful")
SKIES = ("the sun was high", "it had rained all night", "snow lay on the roofs", "the wind was cold",
         "stars were out", "fog hid the road", "the evening was warm", "thunder rolled far away")  # fmt: skip
FOLK = words("shepherd sailor widow child hunter merchant stranger soldier farmer singer hermit fisher")
HINDRANCES = (
    "but the way was blocked by a fallen tree",
    "but the door was locked",
    "but the {thing2} had been broken for years",
    "but the water was too deep",
    "but a dog barked and would not stop",
    "but night came faster than expected",
    "but nobody could remember the right road",
    "but the only bridge was gone",
)
HELPS = (
    '"Take my {thing2}," said {b}, "you need it more than I do."',
    '"Follow me," said {b}, "I know another way through the {place2}."',
    "{b} laughed and lifted the {thing} with one hand.",
    "{b} said nothing, but pointed at the {place2}.",
    '"We should wait," said {b}, and they sat down under a tree.',
    "Then {b} sang a song about the {place2}, and {a} was not afraid any more.",
    "{b} gave {a} some bread, and they shared the {thing2}.",
    '"Why do you want it?" asked {b}. {a} thought about this for a long time.',
)
MIDDLES = (
    "On the way {a} met a {look} {folk} called {b}.",
    "There {a} saw {b}, a {folk} with a {look} face.",
    "Near the {place2} stood {b}, who was a {look} {folk}.",
    'A {folk} came out of the {place2}. "My name is {b}," said the {folk}.',
)
SEARCHES = (
    "{a} wanted to bring a {thing} from the {place} to the {place2}",
    "{a} looked for the lost {thing} in the {place}",
    "{a} had promised to carry the {thing} over to the {place}",
    "{a} set out to sell a {thing} at the {place}",
    "{a} dreamed of a {thing} hidden under the {place}",
)
ENDINGS = (
    "In the end {a} found the {thing} and went home {mood2}.",
    "At last they reached the {place}, and the {thing} was theirs.",
    "When morning came, the {thing} was gone, but {a} was {mood2}.",
    "So {b} kept the {thing2}, and {a} kept the {thing}.",
    "From that day on {a} and {b} were friends.",
    "{a} never told anybody what was inside the {thing}.",
    "And the {thing} still hangs in the {place} today.",
)
ASIDES = (
    "{a} had been {mood} since the {season}.",
    "Behind the {place}, {sky}.",
    "People in the {place2} whispered about it.",
    '"I am {mood}," said {a}, "but I will not turn back."',
    "The {colour} {thing2} shone in the dark.",
    "For {count} days {a} spoke to nobody.",
    "{b} counted {count} birds above the {place2}.",
    "Suddenly something moved behind the {colour} {thing2}.",
    "{a} remembered a word of the {look2} {folk2}.",
    '"Where does this road go?" {a} asked the {folk2}.',
)
COUNTS = words("two three four five six seven nine ten twelve")


def story(source: random.Random, hero: str, friend: str) -> str:
    """A story of about 90 to 160 words about two people."""
    pick = source.choice
    place, place2 = source.sample(PLACES, 2)
    thing, thing2 = source.sample(THINGS, 2)
    mood, mood2 = source.sample(MOODS, 2)
    folk, folk2 = source.sample(FOLK, 2)
    look, look2 = source.sample(LOOKS, 2)
    fills = {"a": hero, "b": friend, "place": place, "place2": place2, "thing": thing, "thing2": thing2}
    fills |= {"mood": mood, "mood2": mood2, "folk": folk, "folk2": folk2, "look": look, "look2": look2}

    def fill(template: str) -> str:
        extra = {"season": pick(SEASONS), "sky": pick(SKIES), "colour": pick(COLOURS), "count": pick(COUNTS)}
        return template.format(**fills, **extra)

    asides = [fill(one) for one in source.sample(ASIDES, 5)]
    helps = [fill(one) for one in source.sample(HELPS, 3)]
    parts = [
        f"Once there was a {look2} {pick(FOLK)} called {hero}, who lived near the {place2}.",
        f"One {pick(SEASONS)} morning, when {pick(SKIES)}, {fill(pick(SEARCHES))}, {fill(pick(HINDRANCES))}.",
        asides[0],
        fill(pick(MIDDLES)),
        helps[0],
        *asides[1:3],
        helps[1],
        f"They walked on to the {pick(PLACES)}, and {pick(SKIES)}.",
        *(asides[3:] if source.random() < 0.5 else asides[3:4]),
        helps[2],
        *(fill(one) for one in source.sample(ENDINGS, 2)),
    ]
    return " ".join(parts)


def text_documents(plan: Plan) -> Iterator[str]:
    """Every training passage and story, unshuffled; no held-out name stands in them."""
    source = rng(plan, "passages")
    fresh = iter(names(plan, "passages", 3 * plan.passages))
    for _ in range(plan.passages):
        place, *people = (next(fresh) for _ in range(3))
        yield passage_document(source, place, people)
    source = rng(plan, "stories")
    fresh = iter(names(plan, "stories", 2 * plan.stories))
    for _ in range(plan.stories):
        yield story(source, next(fresh), next(fresh))


def heldout_documents(plan: Plan) -> list[Row]:
    """Documents for perplexity and fidelity: stories and passages in turn, about people and places never met."""
    return _fresh(plan, "heldout", plan.heldout_documents, skip=6 * plan.passages_heldout)


def _fresh(plan: Plan, purpose: str, count: int, skip: int) -> list[Row]:
    source = rng(plan, purpose, "documents")
    fresh = iter(names(plan, purpose, skip + 3 * count)[skip:])
    rows: list[Row] = []
    for i in range(count):
        a, b, c = (next(fresh) for _ in range(3))
        told = i % 2 == 0
        text = story(source, a, b) if told else passage_document(source, a, [b, c])
        rows.append({"id": f"{purpose}-{i}", "kind": "story" if told else "passage", "text": text})
    return rows


def fresh_documents(plan: Plan, count: int) -> list[Row]:
    """`count` documents like the training text's long ones, of yet other people and places."""
    return _fresh(plan, "calibration", count, skip=0)
