"""What a student is taught by: divergences of token distributions and distances of hidden states, on plain tensors.

Everything in float32. A position is a place in a text where the next token is predicted; filling is none.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from weighin.adapters._train import Batch, Loss

if TYPE_CHECKING:
    import torch

Objective = Literal["forward_kl", "reverse_kl", "jensen_shannon"]


class Lesson(NamedTuple):
    """What a student is taught, and by which models."""

    teachers: list[Any]
    weights: list[float]
    objective: Objective
    temperature: float
    hard: float
    hidden: float


def mixture(logits: "Sequence[torch.Tensor]", weights: Sequence[float], temperature: float) -> "torch.Tensor":
    """Log-probabilities, nats (position, token), of the weighted mean of several teachers' probabilities.

    `logits` are of shape (position, token), one tensor a teacher; each is divided by `temperature` before the mean.
    """
    import torch

    each = [torch.log_softmax(one.float() / temperature, -1) for one in logits]
    if len(each) == 1:
        return each[0]
    shares = torch.tensor([weight / sum(weights) for weight in weights], device=each[0].device)
    return torch.logsumexp(torch.stack(each) + shares.log()[:, None, None], 0)


def divergence(student: "torch.Tensor", teacher: "torch.Tensor", objective: Objective) -> "torch.Tensor":
    """How far a student p is from its teacher q at each position, nats; both are log-probabilities (position, token).

    forward_kl is KL(q || p), the sum of q (log q - log p): the student must cover all that the teacher may say.
    reverse_kl is KL(p || q): the student must say only what the teacher may say. jensen_shannon is half of KL(q || m)
    and half of KL(p || m) with m = (p + q) / 2, at most log 2. (Agarwal et al., arXiv 2306.13649, section 2.)
    """
    import torch

    if objective == "forward_kl":
        return _kl(teacher, student)
    if objective == "reverse_kl":
        return _kl(student, teacher)
    middle = torch.logaddexp(student, teacher) - math.log(2)
    return (_kl(teacher, middle) + _kl(student, middle)) / 2


def _kl(left: "torch.Tensor", right: "torch.Tensor") -> "torch.Tensor":
    return (left.exp() * (left - right)).sum(-1)


def soft_loss(
    logits: "torch.Tensor", teacher: "torch.Tensor", objective: Objective, temperature: float
) -> "torch.Tensor":
    """Mean divergence, nats, of a student's `logits` (position, token) from a teacher's log-probabilities.

    Both at `temperature`, the teacher's already so, and times its square: that keeps the gradient as large as that of
    the plain loss beside it (Hinton et al., arXiv 1503.02531, section 2).
    """
    import torch

    student = torch.log_softmax(logits.float() / temperature, -1)
    return divergence(student, teacher, objective).mean() * temperature**2


def hard_loss(logits: "torch.Tensor", tokens: "torch.Tensor") -> "torch.Tensor":
    """Mean cross-entropy, nats, of `logits` (position, token) with the tokens that really came (position)."""
    import torch

    return torch.nn.functional.cross_entropy(logits.float(), tokens)


def layer_pairs(student: int, teacher: int) -> list[tuple[int, int]]:
    """Which of the teacher's layers each student layer is matched with, both counted from 1: the proportional one.

    The last is always matched with the last.
    """
    return [(i, math.ceil(i * teacher / student)) for i in range(1, student + 1)]


def hidden_loss(
    student: "Sequence[torch.Tensor]", teacher: "Sequence[torch.Tensor]", real: "torch.Tensor", projections: Any
) -> "torch.Tensor":
    """Mean squared distance of matched hidden states over the teacher's mean square, mean over layers.

    Romero et al., arXiv 1412.6550, equation 3, as a share, so that it does not depend on how large the states are.
    `student` and `teacher` hold states (row, position, width), the embeddings' first; `real` is true (row, position)
    where there is a token. `projections` holds a map from the student's width to the teacher's for each student layer,
    or is None where the widths are equal.
    """
    import torch

    pairs = layer_pairs(len(student) - 1, len(teacher) - 1)
    parts = []
    for number, (i, j) in enumerate(pairs):
        ours = student[i][real].float()
        ours = projections[number](ours) if projections is not None else ours
        theirs = teacher[j][real].float()
        parts.append(torch.nn.functional.mse_loss(ours, theirs) / theirs.square().mean())
    return torch.stack(parts).mean()


def positions(logits: "torch.Tensor", labels: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor]":
    """The predictions that count, (position, token), and the tokens that came, (position), of padded rows.

    `logits` (row, place, token) at a place predict the label of the next place; labels of -100 do not count.
    """
    tokens = labels[:, 1:]
    counts = tokens != -100
    return logits[:, :-1][counts], tokens[counts]


def projections(student: Any, lesson: Lesson) -> Any:
    """For each teacher a map from the student's width to its own for each of the student's layers, to be learnt.

    None in the place of a teacher that is as wide as the student.
    """
    import torch

    ours, layers = student.config.hidden_size, student.config.num_hidden_layers
    widths = [teacher.config.hidden_size for teacher in lesson.teachers]
    found: list[Any] = [
        torch.nn.ModuleList(torch.nn.Linear(ours, width, bias=False) for _ in range(layers)) if width != ours else None
        for width in widths
    ]
    return torch.nn.ModuleList(found)


def teaching(lesson: Lesson) -> Loss:
    """The loss, nats, of a student on a batch: the soft and the hard one in their shares, and that of the layers.

    Where a model tells more tokens apart than the other (tables filled up to a round size), those beyond are left out.
    """
    import torch

    def ask(model: Any, batch: Batch) -> Any:
        ids, mask = batch["input_ids"], batch["attention_mask"]
        return model(input_ids=ids, attention_mask=mask, use_cache=False, output_hidden_states=lesson.hidden > 0)

    def loss(model: Any, batch: Batch) -> Any:
        ours = ask(model, batch)
        with torch.no_grad():
            theirs = [ask(teacher, batch) for teacher in lesson.teachers]
        shared = min(answer.logits.shape[-1] for answer in [ours, *theirs])
        logits, tokens = positions(ours.logits, batch["labels"])
        said = [positions(answer.logits, batch["labels"])[0][:, :shared] for answer in theirs]
        teacher = mixture(said, lesson.weights, lesson.temperature)
        value = (1 - lesson.hard) * soft_loss(logits[:, :shared], teacher, lesson.objective, lesson.temperature)
        value = value + lesson.hard * hard_loss(logits, tokens)
        for number, answer in enumerate(theirs if lesson.hidden else []):
            maps = model.projections[number]
            apart = hidden_loss(ours.hidden_states, answer.hidden_states, batch["attention_mask"].bool(), maps)
            value = value + lesson.hidden * apart / len(theirs)
        return value

    return loss
