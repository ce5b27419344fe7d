"""`--scorer`: the same scores in every way, told apart in what is kept; near-ties counted where bits may differ."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from weighin.harness import Checkpoint
from weighin.harness.cli import main
from weighin.harness.jobs import measure
from weighin.harness.model import Loading, TransformersModel
from weighin.harness.plan import protocol
from weighin.harness.scorer import Scoring
from weighin.harness.spec import SpecError, parse_spec
from weighin.results.pairs import Pairs, Refusal, pair
from weighin.results.store import Store
from weighin.suites._flips import flips
from weighin.suites._lm_eval import Options, load_tasks, subset

TASK: dict[str, Any] = {"tasks": ["world_facts"], "limit": 12}


@pytest.fixture(scope="module")
def runs(pico_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, dict[str, str]]:
    """One spec weighed in each way: the store, and each way's evaluation of the base."""
    place = tmp_path_factory.mktemp("ways")
    spec, store = place / "spec.yaml", Store(place / "s.duckdb")
    spec.write_text(yaml.safe_dump({"base": str(pico_dir), "suites": {"accuracy": TASK, "memory": {"new_tokens": 2}}}))
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WEIGHIN_HOME", str(place / "home"))
        for way in ("exact", "fast", "plain"):
            assert main(["run", str(spec), "--scorer", way, "--store", str(store.path)]) == 0
            (row,) = store.rows(
                "select evaluation_id from cells where run_id = ? and suite = 'accuracy'", [store.latest_run()]
            )
            found[way] = row["evaluation_id"]
    return store, found


def values(store: Store, evaluation: str) -> dict[str, float]:
    rows = store.rows("select metric, item, value from samples where evaluation_id = ?", [evaluation])
    return {f"{row['metric']} {row['item']}": row["value"] for row in rows}


def test_every_way_gives_the_same_scores(runs: tuple[Store, dict[str, str]]) -> None:
    store, found = runs
    exact, fast, plain = (values(store, found[way]) for way in ("exact", "fast", "plain"))
    assert exact.keys() == plain.keys() and len(exact) == 36  # acc, acc_norm, gold_margin
    for name, value in exact.items():
        assert plain[name] == pytest.approx(value, abs=1e-4) and fast[name] == pytest.approx(value, abs=1e-4)
    assert fast.keys() - exact.keys() == {"world_facts/near_ties all", "world_facts/flips_to_exact all"}
    assert fast["world_facts/flips_to_exact all"] == 0


def test_unlike_ways_are_compared_only_where_somebody_says_so(runs: tuple[Store, dict[str, str]]) -> None:
    store, found = runs
    ids = (found["exact"], found["plain"])
    refusal = pair(store, "accuracy", "world_facts/acc", ids)
    assert isinstance(refusal, Refusal) and list(refusal.fields) == ["scorer"]
    assert isinstance(pair(store, "accuracy", "world_facts/acc", ids, ["scorer"]), Pairs)


def test_what_does_not_score_is_not_measured_anew(runs: tuple[Store, dict[str, str]]) -> None:
    store, _ = runs
    rows = store.rows("select distinct evaluation_id from cells where suite = 'memory'")
    assert len(rows) == 1


@pytest.mark.parametrize(("suite", "scores"), [("accuracy", True), ("bias", True), ("latency", False)])
def test_a_protocol_names_the_scorer_of_suites_that_score(suite: str, scores: bool, pico_dir: Path) -> None:
    params = {"accuracy": TASK}.get(suite, {})
    spec = parse_spec({"base": str(pico_dir), "suites": {suite: params}, "scorer": "plain"})
    assert protocol(suite, spec.suites[suite], spec).get("scorer") == ("plain" if scores else None)


def test_another_word_is_refused(pico_dir: Path) -> None:
    with pytest.raises(SpecError, match="scorer: Input should be exact, fast or plain"):
        parse_spec({"base": str(pico_dir), "suites": {"latency": {}}, "scorer": "quick"})


def test_a_fall_back_stands_in_the_detail(pico_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from weighin.harness import scorer

    monkeypatch.setattr(scorer, "tolerance", lambda model: -1.0)
    (first, *others) = measure("accuracy", TASK, Checkpoint(pico_dir, "key"), {}, Loading("float32"))
    assert first.detail["scorer"].startswith("plain: ") and "nat a token" in first.detail["scorer"]
    assert sum("scorer" in sample.detail for sample in others) == 2  # one a metric


def test_a_flip_that_rounding_makes_is_counted(pico_dir: Path) -> None:
    """Choices that differ by less than rounding, logged the other way round: each is a near-tie and a flip."""
    model = TransformersModel(Checkpoint(pico_dir, "key"), {}, Loading("float32", scorer="fast"))
    loaded = load_tasks(["world_facts"], Options())["tasks"]["world_facts"]
    rows = [loaded.eval_docs[place] for place in subset(loaded, 4, 0)]
    context = loaded.doc_to_text(rows[0])
    logged = []
    for number, likely in enumerate([(-5.0, -5.0005), (-5.0, -9.0), (-5.0005, -5.0)]):
        pairs = [(context, " red"), (context, " blue stones")]
        logged.append(
            {"doc_id": number, "doc": rows[0], "arguments": pairs, "filtered_resps": [(v, False) for v in likely]}
        )
    near, turned = flips(model, "t", logged)
    assert near.value == pytest.approx(2 / 3)
    assert turned.value == pytest.approx(1 / 3)  # whichever choice is likelier, one of the two ties had it wrong
    assert model.scoring.mode == "fast"
    model.scoring = Scoring("exact", model.scoring.tree)
    assert list(flips(model, "t", logged)) == []
