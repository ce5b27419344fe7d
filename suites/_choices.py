"""Multiple-choice questions of lm-eval's tasks, taken apart so that a suite can ask them in its own way.

What a task asks is what lm-eval would ask: its few-shot examples, its delimiter, its target. Items have the content
hashes that the suite accuracy gives them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from weighin.harness import Abstain, Model
from weighin.suites._lm_eval import Options, item_keys, load_tasks, subset
from weighin.suites._score import Normalise, likelihoods, normalised


@dataclass(frozen=True)
class Question:
    """One question: the document, its contexts and continuations (one a choice), and the places of its right ones.

    `own` is the part of a context that the document itself gave; what is before it are examples and a description.
    """

    task: str
    item: str
    cluster: str | None
    doc: dict[str, Any]
    contexts: tuple[str, ...]
    answers: tuple[str, ...]
    own: str
    gold: frozenset[int]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """What is scored: (context, continuation), one a choice."""
        return list(zip(self.contexts, self.answers, strict=True))

    @property
    def before(self) -> str:
        """What stands before the document's own part of its context."""
        return self.contexts[0].removesuffix(self.own)


def questions(tasks: Sequence[str], options: Options) -> dict[str, list[Question]]:
    """Every task's questions. Abstains for a task that is not multiple choice, and for one without a question."""
    loaded = load_tasks(list(tasks), options)["tasks"]
    found = {}
    for name, task in loaded.items():
        if task.get_config("output_type") != "multiple_choice":
            raise Abstain(f"tasks: {name} is not multiple choice")
        found[name] = _questions(name, task, options)
        if not found[name]:
            raise Abstain(f"tasks: {name} has no question")
    return found


def scores(
    model: Model, asked: Sequence[Question], normalise: Normalise = "none", batch_size: int = 16
) -> list[list[float]]:
    """The log-likelihood of each choice of each question, nats (or nats a byte)."""
    pairs = [pair for question in asked for pair in question.pairs]
    found = iter(zip(likelihoods(model, pairs, batch_size), pairs, strict=True))
    return [
        [normalised(likely, pair[1], normalise) for likely, pair in (next(found) for _ in question.answers)]
        for question in asked
    ]


def _questions(name: str, task: Any, options: Options) -> list[Question]:
    chosen = subset(task, options.limit, options.seed) if options.limit else None
    task.build_all_requests(samples=chosen)
    by_doc: dict[int, list[Any]] = {}
    for instance in task.instances:
        by_doc.setdefault(instance.doc_id, []).append(instance)
    keys = item_keys([{"doc": instances[0].doc} for instances in by_doc.values()])
    field = (task.get_config("metadata") or {}).get("cluster")
    found = []
    for key, instances in zip(keys, by_doc.values(), strict=True):
        doc = instances[0].doc
        # A task scored by mutual information asks for every choice a second time, without a context.
        asked = [i.args for i in instances if i.args[0] or not instances[0].args[0]]
        choices = [answer for _, answer in asked]
        gold = _gold(task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc), task, doc)
        own = "" if task.multiple_input else str(task.doc_to_text(doc))
        cluster = str(doc[field]) if field else None
        contexts = tuple(context for context, _ in asked)
        own = own if own and contexts[0].endswith(own) else contexts[0]
        found.append(Question(name, key, cluster, doc, contexts, tuple(choices), own, gold & set(range(len(choices)))))
    return found


def _gold(target: Any, task: Any, doc: Any) -> frozenset[int]:
    """Places of the right choices, as lm-eval reads a task's target."""
    if isinstance(target, list | tuple):
        return frozenset(place for each in target for place in _gold(each, task, doc))
    if isinstance(target, str):
        choices = list(task.doc_to_choice(doc))
        return frozenset({choices.index(target)} if target in choices else ())
    return frozenset({int(target)})
