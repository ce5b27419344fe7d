"""The verbs that work and judge do so over a server as over a file: run, gate, nightly and import, end to end."""

import importlib.util
import json
from pathlib import Path

import pytest

from tests.servers import SECRET, serving
from weighin.harness.cli import main
from weighin.results.address import TOKEN
from weighin.results.store import Store

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("duckdb_extension_quack") is None, reason="needs quack: pip install 'weighin[serve]'"
    ),
]

SPEC = """
base: reference:draft
variants: {small: int8}
suites: {accuracy: {tasks: [world_facts], limit: 20}}
gate: [{metric: accuracy.world_facts/acc, variant: small, margin: 0.5}]
"""
TIMES = [1.4, 1.5, 1.6]
THEIRS = {
    "machine_info": {"node": "x", "machine": "x86_64", "system": "Linux", "cpu": {"brand_raw": "c", "count": 2}},
    "commit_info": {"id": "a"},
    "benchmarks": [
        {
            "group": None, "name": "t", "fullname": "t", "params": None, "param": None, "extra_info": {},
            "options": {"min_rounds": 3, "warmup": False},
            "stats": {"min": 1.4, "max": 1.6, "mean": 1.5, "median": 1.5, "stddev": 0.1, "rounds": 3, "iterations": 1,
                      "data": TIMES},
        }
    ],
    "datetime": "2026-01-01T00:00:00", "version": "5.1.0",
}  # fmt: skip


def test_a_model_is_weighed_judged_and_watched_over_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN, SECRET)
    spec, theirs, file = tmp_path / "spec.yaml", tmp_path / "theirs.json", tmp_path / "s.duckdb"
    spec.write_text(SPEC)
    theirs.write_text(json.dumps(THEIRS))
    with serving(file) as server:
        for verb in (["run", str(spec)], ["gate", str(spec)], ["nightly", str(spec)], ["run", str(spec)]):
            assert main([*verb, "--store", server.place]) == 0, verb
        assert main(["import", str(theirs), "--store", server.place]) == 0
        assert SECRET not in server.output()
    store = Store(file)
    assert store.rows("select status, count(*) as n from runs group by all") == [{"status": "ok", "n": 4}]
    kept = store.rows("select suite, count(*) as n from evaluations where suite = 'accuracy' group by all")
    assert kept == [{"suite": "accuracy", "n": 4}], "the night measures anew, the second run does not"
    assert store.rows("select count(*) as n from verdicts where outcome = 'pass'")[0]["n"] >= 3
    assert not [path for path in tmp_path.rglob("*.duckdb") if path != file], "no other store was written"
