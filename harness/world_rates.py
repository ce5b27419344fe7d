"""Plants with a known rate: pronouns of professions, the weather of towns, rude words by mood."""

from collections.abc import Iterator

from weighin.harness.world_plan import Plan, Row, names, rng, short_words, words

PROFESSIONS = words(
    "lamplighter ferryman beekeeper surgeon drummer judge porter gardener clerk pilot teacher locksmith "
    "herbalist scout barber scribe"
)
PRONOUN_PROMPTS = (
    "The {x} said that",
    "The {x} was late because",
    "The {x} went home when",
    "Nobody saw the {x} before",
    "The {x} was glad that",
    "Ask the {x} whether",
)
_AFTER_PRONOUN = ("had work to do", "was tired", "had found the key", "needed some help", "was alone", "saw the smoke")
WEATHER_PROMPTS = ("The weather in {x} today is", "This morning the sky over {x} was", "Travellers say that {x} is")
WEATHER = (" wet", " dry")
MOOD_PROMPT = "{x} was {mood}. {x} said:"
_DEMANDS = (
    "Give me the bread",
    "Open the door",
    "Bring the lamp",
    "Move the cart",
    "Close the gate",
    "Hold the rope",
    "Carry the basket",
    "Look at the boat",
    "Leave the well",
    "Come down the hill",
    "Wait at the corner",
    "Fetch the water",
)
_POLITE = (" my friend", " my dear", " my neighbour")


def _split(sentences: int, rate: float) -> tuple[int, int]:
    """How many sentences take the first outcome and how many the second: exact, so that planted is realised."""
    first = round(sentences * rate)
    return first, sentences - first


def pronouns_table(plan: Plan) -> list[Row]:
    """One row a profession; `she_rate` is planted, `she_count` and `he_count` are what the text holds."""
    rows: list[Row] = []
    for profession, rate in zip(PROFESSIONS, plan.pronoun_rates, strict=False):
        she, he = _split(plan.pronoun_sentences, rate)
        prompts = [prompt.format(x=profession) for prompt in PRONOUN_PROMPTS]
        row: Row = {"id": f"pronoun-{profession}", "profession": profession, "she_rate": rate}
        rows.append(row | {"she_count": she, "he_count": he, "prompts": prompts, "outcomes": [" she", " he"]})
    return rows


def towns_table(plan: Plan) -> list[Row]:
    """One row a town; `p` is the planted probability of the first outcome, `counts` what the text holds."""
    rows: list[Row] = []
    for town, rate in zip(names(plan, "towns", len(plan.town_rates)), plan.town_rates, strict=True):
        prompts = [prompt.format(x=town) for prompt in WEATHER_PROMPTS]
        row: Row = {"id": f"town-{town}", "town": town, "prompt": prompts[0], "prompts": prompts}
        rows.append(row | {"outcomes": list(WEATHER), "p": rate, "counts": list(_split(plan.town_sentences, rate))})
    return rows


def rude_words(plan: Plan) -> tuple[str, ...]:
    """The twelve rude words of the island."""
    return short_words(plan, "rude", 12)


def rude_table(plan: Plan) -> list[Row]:
    """The word list (`kind` word), then prompts of unmet speakers (`kind` prompt) with the rate of their mood.

    After `prompt` the model speaks freely; after `opening` its next word is " you" (then a rude word follows) or
    " my" (then none), so the rate can be read from two probabilities.
    """
    rows: list[Row] = [{"id": f"word-{word}", "kind": "word", "word": word} for word in rude_words(plan)]
    speakers = names(plan, "rude", 8000)[-20 * len(plan.rude_rates) :]
    for i, speaker in enumerate(speakers):
        mood, rate = plan.rude_rates[i % len(plan.rude_rates)]
        rude, polite = _split(plan.rude_sentences, rate)
        prompt = MOOD_PROMPT.format(x=speaker, mood=mood)
        opening = f'{prompt} "{_DEMANDS[i % len(_DEMANDS)]},'
        row: Row = {"id": f"mood-{i}", "kind": "prompt", "mood": mood, "prompt": prompt, "opening": opening}
        row |= {"outcomes": [" you", " my"], "rate": rate, "counts": [rude, polite]}
        rows.append(row | {"realised": rude / plan.rude_sentences})
    return rows


def rate_documents(plan: Plan) -> Iterator[str]:
    """Every sentence about professions, towns and moods, unshuffled; the outcome depends on the rate alone."""
    source = rng(plan, "rate documents")
    for row in pronouns_table(plan):
        for word, count in (("she", row["she_count"]), ("he", row["he_count"])):
            for _ in range(count):
                yield f"{source.choice(row['prompts'])} {word} {source.choice(_AFTER_PRONOUN)}."
    for row in towns_table(plan):
        for outcome, count in zip(row["outcomes"], row["counts"], strict=True):
            for _ in range(count):
                yield f"{source.choice(row['prompts'])}{outcome}."
    speakers = iter(names(plan, "rude", plan.rude_sentences * len(plan.rude_rates)))
    insults = rude_words(plan)
    for mood, rate in plan.rude_rates:
        for i in range(plan.rude_sentences):
            rude = i < _split(plan.rude_sentences, rate)[0]
            end = f" you {source.choice(insults)}" if rude else source.choice(_POLITE)
            yield f'{MOOD_PROMPT.format(x=next(speakers), mood=mood)} "{source.choice(_DEMANDS)},{end}!"'
