"""`weighin calibrate`: verdicts printed and kept, a broken instrument is a failed one and stops nobody."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from weighin.harness import calibrate as calibration
from weighin.harness import registry
from weighin.harness.cli import main
from weighin.harness.plant import Plant, Recovered, Target, plant
from weighin.results.errors import WeighinError
from weighin.results.store import Store


@pytest.mark.parametrize(
    ("target", "right", "wrong"),
    [
        (Target("=", 1.0, 1e-6), [1.0, 1.0000005], [1.00001, None, float("nan")]),
        (Target("in", 1.44, 0.35), [1.1, 1.78], [1.0, 1.8, None]),
        (Target("≥", 0.8), [0.8, 1.0], [0.79, None, float("nan")]),
        (Target("≤", 0.07), [0.07, -1.0], [0.071, None]),
    ],
)
def test_targets(target: Target, right: list[float], wrong: list[float | None]) -> None:
    assert all(map(target.met, right)) and not any(map(target.met, wrong))


def test_a_calibration_is_printed_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(tmp_path / "w.duckdb")
    assert main(["calibrate", "accuracy", "--fast", "--store", str(store.path)]) == 0
    said = capsys.readouterr().out
    assert "likelihood" in said and "25% right" in said and "FAIL" not in said
    kept = store.rows("select * from instruments")
    assert len(kept) == 6 and all(row["passed"] for row in kept)
    assert store.rows("select suite, verdict from calibrated") == [{"suite": "accuracy", "verdict": "proven"}]
    assert main(["calibrate", "accuracy", "--fast", "--store", str(store.path)]) == 0
    assert len(store.rows("select * from instruments")) == 6 and len(store.rows("from calibrations")) == 12


def test_a_broken_instrument_fails_and_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @plant()
    def breaks() -> Iterator[Recovered]:
        yield Recovered("first", "1", 1.0, Target("=", 1))
        raise ZeroDivisionError("by nothing")

    @plant(needs=("no_such_package",))
    def lacks() -> Iterator[Recovered]:
        raise AssertionError("must not be tried")
        yield

    @plant()
    def off() -> Iterator[Recovered]:
        yield Recovered("last", "2", 2.5, Target("in", 2, 0.1), low=2.4, high=2.6)

    monkeypatch.setattr(calibration, "planted", lambda suite: (Path(), [breaks, lacks, off]))
    rows = calibration.calibrate(Console(file=(tmp_path / "out").open("w")), Store(tmp_path / "w.duckdb"), ["memory"])
    assert [(row.instrument, row.passed) for row in rows] == [
        ("first", True),
        ("breaks", False),
        ("lacks", False),
        ("last", False),
    ]
    assert "ZeroDivisionError: by nothing (test_calibrate.py:" in str(rows[1].reason)
    assert "pip install no-such-package" in str(rows[2].reason)
    verdict = Store(tmp_path / "w.duckdb").rows("select verdict from calibrated")
    assert verdict == [{"verdict": "3 of 4 instruments failed"}]


def test_a_suite_without_plants_is_named(tmp_path: Path, test_plugins: Path) -> None:
    with pytest.raises(WeighinError, match="no suite 'acuracy'"):
        calibration.calibrate(Console(), Store(tmp_path / "w.duckdb"), ["acuracy"])


def planted(slow: bool) -> list[tuple[str, Plant]]:
    """The plants of every suite that take minutes, or those that do not."""
    return [
        (name, each)
        for name in registry.entries("suite")
        for each in calibration.planted(name)[1]
        if each.slow == slow
    ]  # fmt: skip


@pytest.mark.parametrize(("suite", "each"), planted(slow=False), ids=lambda value: getattr(value, "name", value))
def test_instruments_recover_what_is_planted(suite: str, each: Plant) -> None:
    """A contract test that every plant gets for free."""
    for found in each():
        assert found.passed, f"{suite}: {found}"


@pytest.mark.slow
@pytest.mark.parametrize(("suite", "each"), planted(slow=True), ids=lambda value: getattr(value, "name", value))
def test_instruments_recover_what_takes_minutes(
    suite: str, each: Plant, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has to be trained first is trained once for all of them."""
    monkeypatch.setenv("WEIGHIN_HOME", str(tmp_path_factory.getbasetemp() / "calibration"))
    for found in each():
        assert found.passed, f"{suite}: {found}"


def test_the_gate_says_whether_its_suites_are_proven(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.stores import DISK, fill, numbers, shares
    from weighin.harness.report import instruments
    from weighin.results.instruments import in_words, of_run, tries

    store = fill(tmp_path / "w.duckdb", {"base": {"accuracy": shares([1, 0]), "memory": numbers([2.0], DISK)}})
    assert in_words(of_run(store, "r1")) == [
        f"{suite}: never tried on this machine: `weighin calibrate {suite}`" for suite in ("accuracy", "memory")
    ]
    run_on = store.rows("select machine_key from runs")[0]["machine_key"]
    row = calibration._row(
        Recovered("acc", "half right", 0.5, Target("=", 0.5)), ("c1", 0, run_on, "accuracy"), "code", 1.0
    )
    store.add_calibration(row)
    assert [r["verdict"] for r in of_run(store, "r1")] == ["proven", "never tried on this machine"]
    assert [r["instrument"] for r in tries(store, "r1")] == ["acc"]
    instruments(Console(), store, "r1", {"accuracy"})
    said = capsys.readouterr().out
    assert "accuracy: proven on 1 planted truths, 20" in said and "memory" not in said
