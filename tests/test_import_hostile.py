"""Files that are broken, hostile or of no format: one clear message, nothing kept, text shown as text."""

import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.stores import fill, shares
from weighin.harness.cli import main
from weighin.results import table
from weighin.results.errors import WeighinError
from weighin.results.importing import Outcome, import_files, read
from weighin.results.lookup import side
from weighin.results.outside import name, number, prose
from weighin.results.store import Store

EVIL = "<script>alert(1)</script>[red]x[/] \x1b[31m\u202e'; drop table runs; --"
few = settings(max_examples=40, deadline=None)

text = st.text(st.characters(exclude_categories=[]), max_size=30)
values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=12,
)


def taken(store: Store, *paths: Path, **how: Any) -> list[Outcome]:
    return list(import_files(store, list(paths), **how))


def results(**metrics: Any) -> dict[str, Any]:
    return {"results": {"t": metrics}, "versions": {"t": 1}, "config": {"model_args": "pretrained=m"}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


def shapes(v: Any) -> list[Any]:
    """Each format with `v` wherever it may do harm."""
    metrics = {"accuracy": v, "mean": {"value": v}}
    latency = {"unit": "s", "mean": v, "values": v, "count": v}
    return [
        {"results": {"t": v, "u": {"acc,none": v}}, "versions": v, "config": v, "n-samples": v, "date": v},
        {"results": {"t": {"acc": v, "acc_stderr": v}}, "versions": {}, "config": {"model_args": v}, "groups": v,
         "group_subtasks": v, "configs": v, "higher_is_better": v, "pretty_env_info": v},
        {"benchmarks": [v, {"fullname": v, "stats": v}, {"stats": {"mean": 1.0, "data": v}}], "machine_info": v,
         "commit_info": v, "datetime": v, "version": v},
        {"eval": {"task": v, "model": v, "config": v, "packages": v, "created": v}, "results": v, "stats": v},
        {"eval": {"task": "t"}, "results": {"scores": [{"name": v, "metrics": metrics}]}, "reductions": v,
         "samples": [v, {"id": v, "scores": {"x": v}, "input": v}]},
        {"config": v, "report": {"decode": {"latency": latency, "energy": {"unit": v, "total": v}}}},
        v,
    ]  # fmt: skip


@settings(max_examples=200)
@given(st.integers(0, 6), values)
def test_whatever_stands_where_it_should_not_is_understood_or_refused(folder: Path, shape: int, value: Any) -> None:
    path = folder / "x.json"
    path.write_text(json.dumps(shapes(value)[shape]), encoding="utf-8")
    try:
        log = read(path)
    except WeighinError as error:
        assert str(path) in str(error)
        return
    for subject in log.subjects if log else ():
        assert name(subject.label) == subject.label
        for measured in subject.measured:
            for sample in measured.samples:
                assert sample.metric is not None and name(sample.metric.name) == sample.metric.name
                assert sample.value is None or abs(sample.value) < float("inf")
                assert sample.value is not None or sample.reason


@settings(max_examples=10)
@given(st.integers(0, 6), values)
def test_what_is_understood_can_be_kept(folder: Path, shape: int, value: Any) -> None:
    path, store = folder / "x.json", Store(folder / "w.duckdb")
    path.write_text(json.dumps(shapes(value)[shape]), encoding="utf-8")
    for outcome in taken(store, path):
        assert (outcome.run_id is None) == (outcome.error is not None)
        for row in store.rows("select * from scores where run_id = ?", [outcome.run_id]) if outcome.run_id else ():
            assert row["value"] is not None or row["reason"]
            assert row["ci_low"] is not None or row["ci_reason"]


@few
@given(st.binary(max_size=300))
def test_any_bytes_are_refused_in_words(folder: Path, data: bytes) -> None:
    for ending in (".json", ".csv", ".eval", ".jsonl", ""):
        path = folder / f"bytes{ending}"
        path.write_bytes(data)
        try:
            read(path)
        except WeighinError as error:
            assert str(path) in str(error)


@few
@given(st.integers(0, 2000), st.randoms(use_true_random=False))
def test_a_truncated_file_is_refused_or_the_whole(folder: Path, cut: int, random: Any) -> None:
    whole = json.dumps(results(**{f"acc,{i}": random.random() for i in range(20)}))
    path = folder / "cut.json"
    path.write_text(whole[:cut])
    if cut < len(whole):
        assert [o.run_id for o in taken(Store(folder / "none.duckdb"), path)] == [None]


@given(values)
def test_numbers_names_and_prose(value: Any) -> None:
    found = number(value)
    assert found is None or (isinstance(found, float) and abs(found) < float("inf"))
    assert name(value).isprintable() and 0 < len(name(value)) <= 160
    json.dumps(prose(value), ensure_ascii=False).encode("utf-8")


def test_long_names_stay_different() -> None:
    assert name("x" * 500 + "a") != name("x" * 500 + "b")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("x.json", '{"results": {"t"', "is not whole JSON"),
        ("x.json", "[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ("x.json", "{}", "is no file of inspect, lm-eval"),
        ("x.json", "1" * 5000, "is no file of"),
        ("x.json", '{"results": {"t": {"acc": ' + "1" * 5000 + '}}, "versions": {}}', "is not whole JSON"),
        ("x.csv", "model,forward.latency(s)\na,1,2\n", "has 3 fields where the header has 2"),
        ("x.csv", "model,forward.latency(s)\n", "is no file of"),
        ("x.csv", '\x00\x01\x02"', "is no file of"),
        ("x.html", "<html><body>404</body></html>", "is no file of"),
        ("samples_t_1.jsonl", '{"doc_id": 1}', "samples are read along with their results"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_and_the_store_stays(tmp_path: Path, file: str, content: str, message: str) -> None:
    store = fill(tmp_path / "w.duckdb", {"base": {"accuracy": shares([1, 0])}})
    (tmp_path / file).write_text(content)
    (outcome,) = taken(store, tmp_path / file)
    assert outcome.error is not None and message in outcome.error and str(tmp_path / file) in outcome.error
    assert store.rows("select run_id from runs") == [{"run_id": "r1"}]


def test_huge_numbers_and_missing_ones_are_null_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(
        '{"versions": {}, "results": {"t": {"acc,none": NaN, "ppl,none": 1e999, "f1,none": '
        + "9" * 400
        + ', "em,none": "N/A"}}}'
    )
    store = Store(tmp_path / "w.duckdb")
    (outcome,) = taken(store, tmp_path / "x.json")
    found = store.rows("select value, status, reason from scores where run_id = ?", [outcome.run_id])
    assert len(found) == 4
    assert {(r["value"], r["status"], r["reason"]) for r in found} == {(None, "abstained", "the file gives no number")}


def test_outside_text_stays_text_on_the_terminal_and_in_exports(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = results(**{f"{EVIL},none": 0.5})
    data["config"]["model_args"] = {"pretrained": EVIL}
    place = tmp_path / b"odd \xff\x1b[31m[red]".decode("utf-8", "surrogateescape")
    place.mkdir()
    (place / "x.json").write_text(json.dumps(data))
    (place / "y.json").write_text("{ cut")
    assert main(["import", str(place)]) == 0
    run = str(Store(os.environ["WEIGHIN_STORE"]).latest_run())
    assert main(["show", run]) == 0 and main(["list", "runs"]) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown and "\u202e" not in shown and "<script>" in shown and "[red]" in shown
    for what in ("scores", "model-card"):
        out = tmp_path / f"{what}.md"
        assert main(["export", str(out), "--what", what, "--run", run]) == 0
        body = out.read_text().rpartition("---\n")[2] if what == "model-card" else out.read_text()
        assert "<script>" not in body and "\\<script\\>" in body


def test_a_path_that_is_not_there_is_said_before_anything_is_kept(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps(results(**{"acc,none": 0.5})))
    store = Store(tmp_path / "w.duckdb")
    with pytest.raises(WeighinError, match=r"no file .*nowhere"):
        taken(store, tmp_path / "x.json", tmp_path / "nowhere")
    assert not store.exists()


def test_exit_codes_and_what_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    for place in (good, bad):
        place.mkdir()
    (good / "x.json").write_text(json.dumps(results(**{"acc,none": 0.5})))
    (good / "y.json").write_text("{ cut")
    (bad / "z.txt").write_text("no results")
    assert main(["import", str(good), "--as", "mine"]) == 0
    said = capsys.readouterr().out
    assert "imported lm-eval: mine, run lm-eval-" in said and "not imported" in said
    assert main(["import", str(good / "x.json")]) == 0 and "held already" in capsys.readouterr().out
    for arguments in ([str(bad)], [str(good / "y.json")], [str(good / "x.json"), str(bad)], ["nowhere"]):
        assert main(["import", *arguments]) == 2, arguments
    assert main(["import", str(good / "x.json"), "--format", "inspect"]) == 2
    assert main(["list", "runs"]) == 0 and main(["show", "mine"]) == 0
    assert capsys.readouterr().out.count("imported from lm-eval") == 2


def test_an_imported_model_is_found_by_its_label(tmp_path: Path) -> None:
    store = fill(tmp_path / "w.duckdb", {"base": {"accuracy": shares([1, 0])}})
    told = results(**{"acc,none": 0.5})
    told["config"]["model_args"] = "pretrained=org/model,revision=step1"
    for i in range(2):
        (tmp_path / f"{i}.json").write_text(json.dumps({**told, "date": i + 1}))
    (first,) = taken(store, tmp_path / "0.json")
    assert side(store, "org/model@step1").run_id == first.run_id and side(store, "base").run_id == "r1"
    (second,) = taken(store, tmp_path / "1.json")
    with pytest.raises(WeighinError, match=f"is in 2 imported runs; name one of {second.run_id}/org/model@step1, "):
        side(store, "org/model@step1")
    assert side(store, f"{first.run_id}/org/model@step1").run_id == first.run_id


def test_an_import_never_becomes_the_latest_run_beside_our_own(tmp_path: Path) -> None:
    store = fill(tmp_path / "w.duckdb", {"base": {"accuracy": shares([1, 0])}})
    (tmp_path / "x.json").write_text(json.dumps({**results(**{"acc,none": 0.5}), "date": 4_000_000_000}))
    costs = store.costs()
    (outcome,) = taken(store, tmp_path / "x.json")
    assert store.latest_run() == "r1" and store.costs() == costs
    assert store.rows("select max(started_at) as at from runs")[0]["at"].year == 2096 and outcome.fresh


def test_many_lines_take_no_more_memory_than_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """24 MB of prompts, of which no more is held at a time than those of 200 rows, beside the items' names."""
    monkeypatch.setattr(table, "ROWS", 200)
    n = 3_000
    told = {**results(**{"acc,none": 0.5}), "n-samples": {"t": {"effective": n}}}
    folder = tmp_path / "many"
    folder.mkdir()
    (folder / "results_1.json").write_text(json.dumps(told))
    row = {
        "doc": {"text": "x"},
        "target": "a",
        "arguments": [["y" * 8000]],
        "filter": "none",
        "metrics": ["acc"],
    }
    with (folder / "samples_t_1.jsonl").open("w") as file:
        for i in range(n):
            file.write(json.dumps({**row, "doc_id": i, "doc": {**row["doc"], "i": i}, "acc": float(i % 2)}) + "\n")
    store = fill(tmp_path / "w.duckdb", {"base": {"accuracy": shares([1, 0])}})
    tracemalloc.start()
    (outcome,) = taken(store, folder)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert not outcome.notes and store.rows("select n from scores where run_id = ?", [outcome.run_id]) == [{"n": n}]
    assert peak < 12e6, f"{peak / 1e6:.1f} MB of Python objects"


def test_importing_needs_nothing_heavy(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps(results(**{"acc,none": 0.5})))
    code = (
        "import sys; from weighin.harness.cli import main; main(sys.argv[1:])\n"
        "print('LOADED', sorted({'torch', 'lm_eval', 'transformers', 'datasets'} & sys.modules.keys()))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, "import", str(tmp_path / "x.json")], capture_output=True, text=True
    )
    assert "LOADED []" in run.stdout, run.stdout + run.stderr
