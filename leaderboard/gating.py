"""The gate's verdicts as a table and in one sentence. No Streamlit."""

from collections.abc import Sequence

import pandas as pd

from weighin.results.gate import Verdict, exit_code

RELEASE = {
    0: "The release passes: every gate rule does.",
    1: "The release fails: at least one gate rule does.",
    3: "No verdict yet: no gate rule fails, and not every one passes.",
}
SIGNS = {"pass": "✓ pass", "fail": "✗ FAIL", "inconclusive": "? open"}


def sentence(judged: Sequence[Verdict]) -> str:
    """What the gate says of the release."""
    return RELEASE[exit_code(judged)] if judged else "The spec of this run has no gate rules."


def table(judged: Sequence[Verdict]) -> pd.DataFrame:
    """One row a rule, what fails first."""
    order = {"fail": 0, "inconclusive": 1, "pass": 2}
    rows = sorted(judged, key=lambda each: order[each.outcome])
    return pd.DataFrame(
        {
            "verdict": [SIGNS[each.outcome] + (" (watch)" if each.rule.role == "watch" else "") for each in rows],
            "metric": [each.metric for each in rows],
            "rule": [str(each.rule) for each in rows],
            "why": [each.why for each in rows],
            "waived": [", ".join(each.waived) for each in rows],
        },
        dtype="object",
    )
