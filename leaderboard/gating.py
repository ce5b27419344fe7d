"""The gate's verdicts as a table. No Streamlit."""

from collections.abc import Sequence

import pandas as pd

from weighin.results.gate import Verdict

SIGNS = {"pass": "✓ pass", "fail": "✗ FAIL", "inconclusive": "? open"}


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
