"""Whether the suites of a run have shown on its machine that they recover planted truth (`weighin calibrate`)."""

from typing import Any

from weighin.results.store import Store

UNTRIED = "never tried on this machine"


def of_run(store: Store, run: str) -> list[dict[str, Any]]:
    """One row a suite of the run: `suite`, `verdict` in words, `proven`, `tried` instruments and `tried_at`."""
    return store.rows(
        """select s.suite, coalesce(c.verdict, ?) as verdict, coalesce(c.failed = 0, false) as proven,
               coalesce(c.tried, 0) as tried, c.tried_at
           from (select distinct suite, run_id from cells where run_id = ?) s
           join runs r using (run_id)
           left join calibrated c on c.suite = s.suite and c.machine_key = r.machine_key
           order by s.suite""",
        [UNTRIED, run],
    )


def tries(store: Store, run: str) -> list[dict[str, Any]]:
    """Each instrument's newest try on the run's machine, for the suites of the run."""
    return store.rows(
        """select i.* from instruments i
           join runs r on r.run_id = ? and r.machine_key = i.machine_key
           where i.suite in (select suite from cells where run_id = ?) order by i.suite, i.position""",
        [run, run],
    )


def in_words(rows: list[dict[str, Any]]) -> list[str]:
    """A sentence for each suite."""
    found = []
    for row in rows:
        if not row["tried_at"]:
            found.append(f"{row['suite']}: {row['verdict']}: `weighin calibrate {row['suite']}`")
            continue
        said = f"proven on {row['tried']} planted truths" if row["proven"] else row["verdict"]
        found.append(f"{row['suite']}: {said}, {row['tried_at']:%Y-%m-%d}")
    return found
