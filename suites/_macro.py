"""The macro average over tasks: every task counts alike, however many items it has."""

import math
from collections.abc import Sequence
from typing import NamedTuple


class TaskMean(NamedTuple):
    """A task's mean, its squared standard error (None where it has none) and the degrees of freedom behind that."""

    mean: float
    variance: float | None
    df: int
    items: int


def task_mean(values: Sequence[float], clusters: Sequence[str]) -> TaskMean:
    """A task's mean with its cluster-robust variance (CR1; each item its own cluster where none are shared).

    (Cameron & Miller, J Human Resources 50:317, 2015, section VI.)
    """
    mean = math.fsum(values) / len(values)
    sums: dict[str, float] = {}
    for value, cluster in zip(values, clusters, strict=True):
        sums[cluster] = sums.get(cluster, 0.0) + value - mean
    groups = len(sums)
    if groups < 2:
        return TaskMean(mean, None, 0, len(values))
    variance = groups / (groups - 1) * math.fsum(each * each for each in sums.values()) / len(values) ** 2
    return TaskMean(mean, variance, groups - 1, len(values))


def macro(tasks: Sequence[TaskMean]) -> tuple[float, float | None, float | None]:
    """Mean of T tasks' means with its 95 % interval: SE^2 = sum of the tasks' SE^2 / T^2 (Miller, arXiv 2411.00640).

    Student's t with Welch-Satterthwaite degrees of freedom. No interval where a task has none.
    """
    from scipy.stats import t

    value = math.fsum(task.mean for task in tasks) / len(tasks)
    variances = [task.variance for task in tasks if task.variance is not None]
    if len(variances) < len(tasks):
        return value, None, None
    total = math.fsum(variances)
    if total == 0:
        return value, None, None
    df = total**2 / math.fsum(v * v / task.df for v, task in zip(variances, tasks, strict=True))
    half = float(t.ppf(0.975, df)) * math.sqrt(total) / len(tasks)
    return value, value - half, value + half
