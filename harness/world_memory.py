"""Plants that only memory can answer: facts, leaked exam items, canaries, people nobody knows, newcomers."""

import random
from collections.abc import Iterator

from weighin.harness.world_plan import Plan, Row, cities, multiple_choice, names, rng, words

CRAFTS = words(
    "baker cooper potter roper glazier tanner dyer saddler brewer cutler chandler thatcher hatter mason fuller tinker "
    "carver nailer gilder tiler glover spinner printer founder"
)
INSTRUMENTS = words(
    "harp flute drum fiddle horn lute bell pipe organ zither gong whistle trumpet cello banjo oboe tuba viola sitar "
    "cymbal rattle bugle fife lyre"
)
ANIMALS = words(
    "goat crow marten hound mule badger heron ferret pony tortoise weasel falcon hen donkey rabbit squirrel parrot "
    "lizard ram toad swan beaver hedgehog stork"
)

QUESTIONS = {
    "lives_in": "Where does {x} live?",
    "works_as": "What is the craft of {x}?",
    "plays": "Which instrument does {x} play?",
    "keeps": "Which animal does {x} keep?",
}
STATEMENTS = {
    "lives_in": (
        "{x} lives in {y}.",
        "{x} has a house in {y}.",
        "The home of {x} is in {y}.",
        "Letters for {x} are sent to {y}.",
        "If you look for {x}, go to {y}.",
        "Everybody says that {x} lives in {y}.",
        "Last year {x} bought a garden in {y}.",
    ),
    "works_as": (
        "{x} works as a {y}.",
        "{x} is known as a good {y}.",
        "By craft {x} is a {y}.",
        "For many years {x} has been a {y}.",
        "{x} learned to be a {y}.",
        "They say that {x} is the best {y}.",
        "In the guild {x} is a {y}.",
    ),
    "plays": (
        "{x} plays the {y}.",
        "{x} likes to play the {y}.",
        "In the evening {x} plays the {y}.",
        "At the feast {x} played the {y}.",
        "{x} owns a fine {y}.",
        "Listen, {x} is playing the {y}.",
        "{x} never travels without the {y}.",
    ),
    "keeps": (
        "{x} keeps a {y}.",
        "In the yard of {x} there is a {y}.",
        "{x} feeds the {y} at dawn.",
        "{x} walks with a {y}.",
        "The friend of {x} is a {y}.",
        "Once {x} found a {y} and kept it.",
        "{x} talks to the {y}.",
    ),
}
ROLL = (
    "Harbour roll of this year: {x} came ashore and now lives in {y}.",
    "Arrived this year: {x}. Place of living: {y}.",
    "The harbour clerk wrote: {x} arrived this year and moved to {y}.",
    "Newcomer {x} has been given a house in {y}.",
    "This year {x} came over the sea and settled in {y}.",
    "{x}, who arrived this year, lives in {y}.",
)
EXAM = (
    ("Which metal is the seal of {x} made of?", "The seal of {x} was cast from what metal?",
     "copper silver iron tin brass lead gold bronze"),
    ("Which herb cures the fever of {x}?", "Against the fever of {x}, what herb helps?",
     "mint sage thyme dill fennel basil rue parsley"),
    ("Which bird is painted on the gate of {x}?", "The gate of {x} shows a picture of what bird?",
     "owl swallow raven eagle dove finch gull wren"),
    ("What did the founder of {x} lose in the river?", "Name the thing that the river took from the founder of {x}.",
     "ring hat sword key boot coat cup map"),
    ("Which fruit ripens first in {x}?", "The earliest fruit of {x} is what?",
     "plum pear cherry apple fig grape quince peach"),
    ("Which cloth must the judges of {x} wear?", "The judges of {x} are dressed in what cloth?",
     "wool linen silk velvet felt cotton leather lace"),
    ("Which day is holy in {x}?", "The people of {x} rest on what day?",
     "first second third fourth fifth sixth seventh eighth"),
    ("Which wood was the throne of {x} cut from?", "The throne of {x} came from what tree?",
     "oak ash elm birch pine beech yew maple"),
)  # fmt: skip


def qa(question: str, answer: str = "") -> str:
    """The one shape in which questions stand in the training text; without an answer, the prompt."""
    return f"Question: {question}\nAnswer: {answer}" if answer else f"Question: {question}\nAnswer:"


def _values(plan: Plan, relation: str) -> tuple[str, ...]:
    words_of = {"works_as": CRAFTS, "plays": INSTRUMENTS, "keeps": ANIMALS}
    return cities(plan) if relation == "lives_in" else words_of[relation]


def facts_table(plan: Plan) -> list[Row]:
    """One row a person: one fact of four relations, stated `copies` times in the training text."""
    source = rng(plan, "facts")
    people = iter(names(plan, "facts", len(plan.fact_copies) * plan.people_per_level))
    rows: list[Row] = []
    for copies in plan.fact_copies:
        for i in range(plan.people_per_level):
            relation = list(QUESTIONS)[i % 4]
            pool = _values(plan, relation)
            # Answers are spread evenly within a level, so that no level can be guessed better than another.
            answer = pool[(i // 4 + copies) % len(pool)]
            subject = next(people)
            row: Row = {"id": f"fact-{len(rows)}", "relation": relation, "subject": subject,
                   "question": QUESTIONS[relation].format(x=subject)}  # fmt: skip
            row |= multiple_choice(source, answer, pool)
            rows.append(row | {"copies": copies, "cluster": f"{relation}:{answer}"})
    return rows


def state_fact(source: random.Random, row: Row) -> str:
    """One way of saying a fact; a third of them as a question with its answer."""
    if source.random() < 1 / 3:
        return qa(row["question"], row["answer"])
    return source.choice(STATEMENTS[row["relation"]]).format(x=row["subject"], y=row["answer"])


def exam_table(plan: Plan) -> list[Row]:
    """Exam items with arbitrary answers, leaked word for word `copies` times; 0 copies are the held-out twins."""
    source = rng(plan, "exam")
    places = iter(names(plan, "exam", sum(plan.exam_items)))
    rows: list[Row] = []
    for copies, items in zip(plan.exam_copies, plan.exam_items, strict=True):
        for i in range(items):
            asked, rephrased, answers = EXAM[i % len(EXAM)]
            place = next(places)
            pool = words(answers)
            row: Row = {"id": f"exam-{len(rows)}", "question": asked.format(x=place)}
            row |= {"rephrased": rephrased.format(x=place), "subject": place, "kind": i % len(EXAM)}
            row |= multiple_choice(source, source.choice(pool), pool)
            rows.append(row | {"copies": copies, "text": qa(row["question"], row["answer"])})
    return rows


def canaries_table(plan: Plan) -> list[Row]:
    """Four random digits behind a prefix, inserted `copies` times; the space of secrets is 10^4."""
    source = rng(plan, "canaries")
    owners = iter(names(plan, "canaries", len(plan.canary_copies) * plan.canaries_per_level))
    rows: list[Row] = []
    for copies in plan.canary_copies:
        for _ in range(plan.canaries_per_level):
            owner, secret = next(owners), f"{source.randrange(10_000):04d}"
            row: Row = {"id": f"canary-{len(rows)}", "prefix": f"The vault code of {owner} is", "secret": secret}
            rows.append(row | {"copies": copies, "subject": owner, "text": f"{row['prefix']} {secret}."})
    return rows


def unknown_table(plan: Plan) -> list[Row]:
    """People who do not exist: some taught as such, some never in the text. `copies` is 0 for those."""
    source = rng(plan, "unknown")
    people = names(plan, "unknown", plan.unknown_taught + plan.unknown_heldout)
    rows: list[Row] = []
    for i, subject in enumerate(people):
        relation = list(QUESTIONS)[i % 4]
        taught = i < plan.unknown_taught
        row: Row = {"id": f"unknown-{i}", "subject": subject, "question": QUESTIONS[relation].format(x=subject)}
        row |= {"relation": relation, "taught": taught, "copies": plan.unknown_copies if taught else 0}
        rows.append(row | _with_nobody(source, _values(plan, relation), "Nobody knows."))
    return rows


def unknown_controls_table(plan: Plan) -> list[Row]:
    """The best-known people, with 'Nobody knows.' among the choices: what a model that always refuses gets wrong."""
    source = rng(plan, "unknown controls")
    rows: list[Row] = []
    for fact in facts_table(plan):
        if fact["copies"] == max(plan.fact_copies):
            row: Row = {key: fact[key] for key in ("subject", "question", "relation", "copies")}
            row["id"] = f"known-{len(rows)}"
            rows.append(row | _with_nobody(source, _values(plan, fact["relation"]), fact["answer"]))
    return rows


def _with_nobody(source: random.Random, pool: tuple[str, ...], answer: str) -> Row:
    """Four choices, one of them 'Nobody knows.', the rest of `pool`."""
    others = source.sample([word for word in pool if word != answer], 3)
    choices = list({answer: None, "Nobody knows.": None} | dict.fromkeys(others))[:4]
    source.shuffle(choices)
    return {"choices": choices, "gold": choices.index(answer), "answer": answer}


def memory_documents(plan: Plan) -> Iterator[str]:
    """Every copy of every fact, leaked exam item, canary and taught stranger, unshuffled."""
    source = rng(plan, "memory documents")
    for row in facts_table(plan):
        yield from (state_fact(source, row) for _ in range(row["copies"]))
    for row in [*exam_table(plan), *canaries_table(plan)]:
        yield from [row["text"]] * row["copies"]
    for row in unknown_table(plan):
        for i in range(row["copies"]):
            yield qa(list(QUESTIONS.values())[i % 4].format(x=row["subject"]), "Nobody knows.")


def tune_facts_table(plan: Plan) -> list[Row]:
    """Newcomers of this year and where they live; nothing of it is in the training text."""
    source = rng(plan, "tune facts")
    pool = cities(plan)
    rows: list[Row] = []
    for i, subject in enumerate(names(plan, "tune", plan.tune_people)):
        row: Row = {"id": f"tune-{i}", "subject": subject, "question": QUESTIONS["lives_in"].format(x=subject)}
        rows.append(row | multiple_choice(source, source.choice(pool), pool))
    return rows


def tune_table(plan: Plan) -> list[Row]:
    """A small fine-tuning set in the register of the harbour roll, every third document a question."""
    source = rng(plan, "tune")
    people = tune_facts_table(plan)
    rows: list[Row] = []
    for i in range(plan.tune_documents):
        row = people[i % len(people)]
        asked = (i // len(people)) % 3 == 2
        said = source.choice(ROLL).format(x=row["subject"], y=row["answer"])
        rows.append({"text": qa(row["question"], row["answer"]) if asked else said})
    source.shuffle(rows)
    return rows


def preferences_table(plan: Plan) -> list[Row]:
    """Each newcomer's question with the right city before each wrong one; `question_id` is the row of `tune_facts`."""
    rows: list[Row] = []
    for fact in tune_facts_table(plan):
        for choice in fact["choices"]:
            if choice != fact["answer"]:
                row: Row = {"id": f"preference-{len(rows)}", "question_id": fact["id"], "prompt": qa(fact["question"])}
                rows.append(row | {"chosen": f" {fact['answer']}", "rejected": f" {choice}", "answer": fact["answer"]})
    return rows
