"""Logs of Inspect: both formats, every age of their layout, and scores that their samples make up or do not."""

import json
import math
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest

from weighin.results.errors import WeighinError
from weighin.results.foreign import Log
from weighin.results.import_inspect_scores import taken as scored
from weighin.results.import_inspect_scores import worth
from weighin.results.importing import Outcome, import_files, read
from weighin.results.statistics import wilson
from weighin.results.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "w.duckdb")


def taken(store: Store, *paths: Path) -> list[Outcome]:
    return list(import_files(store, list(paths)))


def scores(store: Store, run: str | None) -> dict[str, dict[str, Any]]:
    return {row["metric"]: row for row in store.rows("select * from scores where run_id = ?", [run])}


def sample(i: int, value: Any, epoch: int = 1, **other: Any) -> dict[str, Any]:
    return {
        "id": i, "epoch": epoch, "target": "ja",
        "input": [{"id": f"random{i}{epoch}", "role": "user", "content": f"Heißt es {i}?"}],
        "scores": {"match": {"value": value, "answer": "nein"}}, "messages": [], "output": {"model": "m"},
    } | other  # fmt: skip


def log(samples: list[dict[str, Any]], *given: dict[str, Any], **other: Any) -> dict[str, Any]:
    return {
        "version": 2, "status": "success",
        "eval": {
            "task": "yes", "task_version": 1, "created": "2026-01-02T03:04:05+00:00", "model": "mock/modèl",
            "dataset": {"name": "yes", "samples": len(samples)}, "config": {"epochs": 1},
            "packages": {"inspect_ai": "0.3.99"},
        },
        "plan": {"name": "plan", "steps": [{"solver": "generate"}], "config": {"temperature": 0}},
        "results": {"total_samples": len(samples), "scores": list(given)},
        "stats": {"started_at": "2026-01-02T03:04:05+00:00", "completed_at": "2026-01-02T03:04:15+00:00"},
        "samples": samples,
    } | other  # fmt: skip


def score(name: str = "match", scorer: str | None = None, **metrics: Any) -> dict[str, Any]:
    named = {key: {"name": key, "value": value} for key, value in metrics.items()}
    return {"name": name, "scorer": scorer or name, "metrics": named}


def pack(path: Path, data: dict[str, Any], **extra: str) -> Path:
    """An `.eval` file as inspect_ai writes it: a header without samples, and an entry a sample."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        header = {key: value for key, value in data.items() if key not in ("samples", "reductions")}
        archive.writestr("_journal/start.json", json.dumps({key: data[key] for key in ("version", "eval", "plan")}))
        for one in data["samples"]:
            archive.writestr(f"samples/{one['id']}_epoch_{one['epoch']}.json", json.dumps(one))
        archive.writestr("summaries.json", "[]")
        if "reductions" in data:
            archive.writestr("reductions.json", json.dumps(data["reductions"]))
        archive.writestr("header.json", json.dumps(header))
        for name, text in extra.items():
            archive.writestr(name.replace("__", "/"), text)
    return path


def test_both_formats_give_what_their_samples_come_to(tmp_path: Path, store: Store) -> None:
    samples = [sample(i, "C" if i < 7 else "I") for i in range(10)]
    data = log(samples, score(accuracy=0.7, stderr=0.15275))
    (tmp_path / "log.json").write_text(json.dumps(data))
    pack(tmp_path / "log.eval", data)
    for outcome in taken(store, tmp_path):
        assert outcome.origin == "inspect 0.3.99" and outcome.labels == ("mock/modèl",) and not outcome.notes
        (row,) = scores(store, outcome.run_id).values()
        assert (row["metric"], row["value"], row["n"], row["better"]) == ("yes/accuracy", 0.7, 10, "higher")
        assert (row["ci_low"], row["ci_high"]) == pytest.approx(wilson(7, 10))
    assert store.rows("select count(distinct item) as n from samples") == [{"n": 10}], "the same questions in both"
    assert store.rows("select distinct seconds from evaluations") == [{"seconds": 10.0}]


def test_scores_of_several_scorers_words_numbers_and_objects(tmp_path: Path, store: Store) -> None:
    values = [("C", 0.5, {"a": 1, "b": 0.25}), ("P", 1.5, {"a": 0, "b": 0.75}), ("N", "2", {"a": 0, "b": 1})]
    samples = [
        sample(i, word, scores={"match": {"value": word}, "grade": {"value": n}, "both": {"value": pair}})
        for i, (word, n, pair) in enumerate(values)
    ]
    given = [
        score(accuracy=0.5),
        score("grade", mean=4 / 3, std=0.76),
        score("a", "both", mean=1 / 3),
        score("b", "both", mean=2 / 3),
    ]
    (outcome,) = taken(store, pack(tmp_path / "x.eval", log(samples, *given)))
    found = scores(store, outcome.run_id)
    assert {metric: (row["value"], row["n"]) for metric, row in found.items()} == {
        "yes/accuracy,match": (0.5, 3), "yes/mean,grade": (pytest.approx(4 / 3), 3), "yes/std,grade": (0.76, 1),
        "yes/mean,a": (pytest.approx(1 / 3), 3), "yes/mean,b": (pytest.approx(2 / 3), 3),
    }  # fmt: skip
    assert not outcome.notes and found["yes/std,grade"]["better"] == "none"


def test_epochs_are_repetitions_unless_they_are_reduced_otherwise(tmp_path: Path, store: Store) -> None:
    samples = [sample(i, "C" if i + epoch < 4 else "I", epoch) for i in range(3) for epoch in (1, 2, 3)]
    means = log(samples, score(accuracy=(3 + 2 + 1) / 9))
    best = log(samples, {**score(accuracy=1.0), "reducer": "max"})
    reductions = [{"scorer": "match", "reducer": "max", "samples": [{"sample_id": i, "value": 1.0} for i in range(3)]}]
    pack(tmp_path / "means.eval", means)
    pack(tmp_path / "max.eval", {**best, "reductions": reductions})
    best_of, mean = (scores(store, o.run_id)["yes/accuracy"] for o in taken(store, tmp_path))
    assert (mean["value"], mean["n"]) == (pytest.approx(2 / 3), 3) and (best_of["value"], best_of["n"]) == (1.0, 3)
    assert store.rows("select count(*) as n from samples group by evaluation_id order by n") == [{"n": 3}, {"n": 9}]


def test_samples_that_failed_are_counted_and_not_scored(tmp_path: Path, store: Store) -> None:
    samples = [sample(0, "C"), sample(1, "I"), sample(2, None, scores=None, error={"message": "the [cable] broke"}),
               sample(3, math.nan)]  # fmt: skip
    (tmp_path / "x.json").write_text(json.dumps(log(samples, score(accuracy=0.5))))
    (outcome,) = taken(store, tmp_path / "x.json")
    row = scores(store, outcome.run_id)["yes/accuracy"]
    assert (row["value"], row["n"], row["unscored"]) == (0.5, 2, 2)
    reasons = {r["reason"] for r in store.rows("select reason from samples where value is null")}
    assert reasons == {"the [cable] broke", "not scored"}


def test_a_figure_that_no_mean_gives_is_kept_as_stated(tmp_path: Path, store: Store) -> None:
    samples = [sample(i, "C") for i in range(4)]
    data = log(samples, {**score(accuracy=0.25, stderr=0.1), "scored_samples": 40})
    (outcome,) = taken(store, pack(tmp_path / "x.eval", data))
    row = scores(store, outcome.run_id)["yes/accuracy"]
    assert row["value"] == 0.25 and row["n"] == 40 and row["ci_high"] == pytest.approx(0.446, abs=1e-3)
    assert "no mean of its samples gives it" in outcome.notes[0]


def test_a_log_without_samples_and_one_of_version_1(tmp_path: Path, store: Store) -> None:
    old = log([], version=1)
    metrics = {"accuracy": 0.75, "bootstrap_std": 0.05, "std": math.nan}
    old["results"] = {"scorer": {"name": "fact"}, "metrics": score(**metrics)["metrics"]}
    del old["samples"], old["eval"]["packages"]
    old["eval"]["created"] = "2024-05-05T07:59:35"
    (tmp_path / "old.json").write_text(json.dumps(old))
    (outcome,) = taken(store, tmp_path)
    found = scores(store, outcome.run_id)
    assert found["yes/accuracy"]["ci_low"] == pytest.approx(0.75 - 1.96 * 0.05, abs=1e-3)
    assert found["yes/std"]["value"] is None and found["yes/std"]["reason"] == "the file gives no number"
    assert outcome.origin == "inspect"


def test_one_scorer_of_before_there_were_several(tmp_path: Path, store: Store) -> None:
    samples = [{k: v for k, v in sample(i, "C").items() if k != "scores"} | {"score": {"value": "C"}} for i in range(5)]
    (tmp_path / "x.json").write_text(json.dumps(log(samples, score("match", accuracy=1.0))))
    (outcome,) = taken(store, tmp_path)
    assert scores(store, outcome.run_id)["yes/accuracy"]["n"] == 5


def test_a_run_that_was_cut_short_says_so_and_one_without_scores_is_refused(tmp_path: Path, store: Store) -> None:
    samples = [sample(i, "C") for i in range(5)]
    partial = log(samples, score(accuracy=1.0), status="error", error={"message": "no more credit"})
    (outcome,) = taken(store, pack(tmp_path / "partial.eval", partial))
    assert "ended as error (no more credit)" in outcome.notes[0] and outcome.fresh
    with zipfile.ZipFile(tmp_path / "started.eval", "w") as archive:
        archive.writestr("_journal/start.json", json.dumps({k: partial[k] for k in ("version", "eval", "plan")}))
        archive.writestr("samples/1_epoch_1.json", json.dumps(samples[0]))
    (refused,) = taken(store, tmp_path / "started.eval")
    assert refused.error is not None and "holds no score: the run ended as started" in refused.error


def test_chunked_samples_are_read_by_their_shell(tmp_path: Path, store: Store) -> None:
    data = log([], score(accuracy=0.4), version=3)
    shells = {f"samples__{i}_epoch_1__sample.json": json.dumps(sample(i, "C" if i < 2 else "I")) for i in range(5)}
    events = {f"samples__{i}_epoch_1__events__0.json": "[1, 2]" for i in range(5)}
    (outcome,) = taken(store, pack(tmp_path / "x.eval", data, **shells, **events))
    assert scores(store, outcome.run_id)["yes/accuracy"]["n"] == 5 and not outcome.notes


def test_names_in_the_zip_lead_nowhere(tmp_path: Path, store: Store) -> None:
    data = log([sample(i, "C") for i in range(5)], score(accuracy=1.0))
    evil = {
        "..__..__evil.json": "{}",
        "__etc__passwd": "x",
        "samples__..__..__x_epoch_1.json": json.dumps(sample(9, "C")),
    }
    (outcome,) = taken(store, pack(tmp_path / "x.eval", data, **evil))
    assert outcome.fresh and sorted(p.name for p in tmp_path.iterdir()) == ["w.duckdb", "x.eval"]
    assert not (tmp_path.parent / "evil.json").exists()


def test_a_damaged_zip_is_refused(tmp_path: Path, store: Store) -> None:
    whole = pack(tmp_path / "x.eval", log([sample(i, "C") for i in range(5)], score(accuracy=1.0))).read_bytes()
    for name, content in (("cut", whole[: len(whole) // 2]), ("empty", b""), ("not", b"PK\x03\x04 nothing")):
        (tmp_path / f"{name}.eval").write_bytes(content)
        (outcome,) = taken(store, tmp_path / f"{name}.eval")
        assert outcome.error is not None and "is not a whole .eval file" in outcome.error, name
    assert not store.exists()
    survives_damage(tmp_path / "bits.eval", whole, 41)


def survives_damage(path: Path, whole: bytes, step: int) -> None:
    """Wherever a byte is another, no other value is read: a sample may be missing, or the file is refused in words."""
    for place in range(30, len(whole), step):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        try:
            found = valued(read(path))
        except WeighinError as error:
            assert path.name in str(error)
        else:
            assert found is None or set(found) <= {0.0, 0.4, 1.0}, place


def valued(log: Log | None) -> list[Any] | None:
    return None if log is None else [s.value for x in log.subjects for m in x.measured for s in m.samples]


def zstandard_zip(path: Path, entries: dict[str, str]) -> Path:
    """A zip compressed as Inspect compresses since 0.3.2xx: stored Zstandard, whose headers are then set right."""
    zstandard = pytest.importorskip("zstandard", reason="weighin[inspect] is not installed")
    packed = {name: zstandard.ZstdCompressor().compress(text.encode()) for name, text in entries.items()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in packed.items():
            archive.writestr(name, data)
        places = {info.filename: info.header_offset for info in archive.infolist()}
    data = bytearray(path.read_bytes())
    central = data.index(b"PK\x01\x02")
    for name, text in entries.items():
        true = struct.pack("<III", zlib.crc32(text.encode()), len(packed[name]), len(text.encode()))
        data[places[name] + 8 : places[name] + 10] = data[central + 10 : central + 12] = struct.pack("<H", 93)
        data[places[name] + 14 : places[name] + 26] = data[central + 16 : central + 28] = true
        central = data.find(b"PK\x01\x02", central + 4)
    path.write_bytes(bytes(data))
    return path


def test_logs_compressed_with_zstandard(tmp_path: Path, store: Store) -> None:
    data = log([], score(accuracy=0.4))
    entries = {f"samples/{i}_epoch_1.json": json.dumps(sample(i, "C" if i < 2 else "I")) for i in range(5)}
    path = zstandard_zip(tmp_path / "x.eval", {"header.json": json.dumps(data), **entries})
    (outcome,) = taken(store, path)
    assert scores(store, outcome.run_id)["yes/accuracy"]["n"] == 5 and not outcome.notes
    survives_damage(tmp_path / "bits.eval", path.read_bytes(), 31)


def test_equal_questions_are_told_apart_and_ids_do_not_count() -> None:
    one, other, again = (scored([sample(i, "C", input="same", target=t)])[0] for i, t in ((1, "x"), (2, "x"), (1, "y")))
    assert one.item == other.item != again.item
    both = scored([sample(1, "C", input="same"), sample(2, "C", input="same"), sample(1, "C", 2, input="same")])
    assert [s.item for s in both] == [both[0].item, both[0].item + "#2", both[0].item]


@pytest.mark.parametrize(
    ("value", "number"),
    [("C", 1), ("I", 0), ("P", 0.5), ("N", 0), ("Yes", 1), ("TRUE", 1), ("no", 0), (True, 1), (3, 3), ("0.25", 0.25),
     ("c", None), ("maybe", None), ([1, 0], None), ({"a": 1}, None), (None, None), (math.nan, None), ("nan", None)],
)  # fmt: skip
def test_what_a_value_is_worth(value: Any, number: float | None) -> None:
    assert worth(value) == number
