"""A model behind a server is weighed like any other, as far as the server shows it; and no key is seen anywhere."""

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.servers import free_port
from weighin.harness import Abstain, Checkpoint, WeighinError
from weighin.harness.endpoint import Endpoint, client, settle
from weighin.harness.endpoint_client import Client, EndpointError, Refused, _pause
from weighin.harness.endpoint_model import EndpointModel
from weighin.harness.model import TransformersModel
from weighin.harness.plan import Plan, job_names, make_plan
from weighin.harness.prefix_tree import Request
from weighin.harness.progress import Display
from weighin.harness.run import weigh
from weighin.harness.scorer import score
from weighin.harness.spec import SpecError, parse_spec
from weighin.results.store import Store

KEY = "sk-do-not-tell-anybody-0451"
os.environ["THEIR_KEY"] = KEY  # now, because workers have the environment of when the first of all tests needed one
ROOT = Path(__file__).resolve().parent.parent
BODY = {"model": "pico", "prompt": "The old lantern", "max_tokens": 4, "temperature": 0}


class Server:
    """The tests' own server, with the faults it is to meet next."""

    def __init__(self, folder: Path, model: Path) -> None:
        port, self.faults = folder / "port", folder / "faults"
        command = [sys.executable, "-m", "tests.completions_server", str(model), str(port), str(self.faults)]
        self.process = subprocess.Popen(command, cwd=ROOT)
        while not port.exists():
            assert self.process.poll() is None, "the server ended"
            time.sleep(0.05)
        self.url = f"http://127.0.0.1:{port.read_text()}/v1"

    def meets(self, *faults: str) -> None:
        self.faults.write_text("\n".join(faults))

    def count(self) -> dict[str, int]:
        return Client(self.url.removesuffix("/v1")).get("count")


@pytest.fixture(scope="module")
def running(pico_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"), pico_dir)
    yield server
    server.process.kill()
    server.process.wait()


@pytest.fixture
def server(running: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr("weighin.harness.endpoint_client.FIRST_PAUSE", 0.01)
    running.meets()
    yield running
    running.meets()


@pytest.fixture
def asked(server: Server) -> Client:
    return Client(server.url, KEY, timeout=1.0, tries=3)


def model_of(server: Server, pico_dir: Path, parent: bool = False) -> EndpointModel:
    endpoint = Endpoint(endpoint=server.url, name="pico", key="THEIR_KEY")
    relatives = dict.fromkeys(("parent", "root"), Checkpoint(pico_dir, "pico")) if parent else {}
    return EndpointModel(settle(endpoint, pico_dir), relatives)


# -- the client -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["429", "500", "503", "garbled", "short", "slow"])
def test_what_may_pass_is_tried_again(server: Server, asked: Client, fault: str) -> None:
    sound = asked.post("completions", BODY)
    server.meets(fault)
    began = time.monotonic()
    assert asked.post("completions", BODY)["choices"] == sound["choices"]
    assert asked.retried == 1
    assert time.monotonic() - began >= (1.0 if fault in ("429", "slow") else 0.0), "it came back too early"


@pytest.mark.parametrize("fault", ["500", "garbled", "short", "429"])
def test_what_does_not_pass_is_given_up_and_the_key_is_not_in_what_is_said(
    server: Server, asked: Client, fault: str
) -> None:
    before = server.count()["asked"]
    server.meets(f"always:{fault}")
    with pytest.raises(EndpointError, match="tried 3 times") as found:
        asked.post("completions", BODY)
    assert server.count()["asked"] == before + 3
    assert KEY not in str(found.value) and "sk-do" not in str(found.value)
    assert "[key]" in str(found.value) or fault == "short"


@pytest.mark.parametrize("fault", ["400", "401", "redirect"])
def test_what_is_refused_is_not_asked_again(server: Server, asked: Client, fault: str) -> None:
    before = server.count()["asked"]
    server.meets(f"always:{fault}")
    with pytest.raises(Refused) as found:
        asked.post("completions", BODY)
    assert server.count()["asked"] == before + 1
    assert KEY not in str(found.value)


def test_a_stream_that_breaks_off_is_asked_for_again_and_timed_anew(server: Server, asked: Client) -> None:
    server.meets("cut")
    events = asked.stream("completions", {**BODY, "max_tokens": 8})
    assert asked.retried == 1
    assert sum(bool(event["choices"] and event["choices"][0]["text"]) for _, event in events) == 8
    times = [at for at, _ in events]
    assert times == sorted(times) and times[0] > 0
    server.meets("always:cut")
    with pytest.raises(EndpointError, match="cut short"):
        asked.stream("completions", {**BODY, "max_tokens": 8})


def test_no_more_requests_at_a_time_than_allowed(server: Server) -> None:
    several = Client(server.url, concurrency=3)
    found = several.all("completions", [{**BODY, "max_tokens": 1 + n % 5} for n in range(30)])
    assert [each["usage"]["completion_tokens"] for each in found] == [1 + n % 5 for n in range(30)], "the order is kept"
    assert 1 < server.count()["most"] <= 3


def test_nobody_there_is_said() -> None:
    with pytest.raises(EndpointError, match=r"127\.0\.0\.1:1/v1: ConnectionRefusedError"):
        Client("http://127.0.0.1:1/v1", tries=1).get("models")


def test_pauses_as_servers_ask_for_them() -> None:
    assert _pause("7") == 7.0 and _pause(None) is None and _pause("soon") is None
    assert _pause("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert _pause("Wed, 21 Oct 2099 07:28:00 GMT") > 1e9  # type: ignore[operator]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"endpoint": f"http://user:{KEY}@127.0.0.1/v1"}, "holds no credentials"),
        ({"endpoint": f"http://127.0.0.1/v1?key={KEY}"}, "no query"),
        ({"endpoint": f"ftp://{KEY}"}, "is no address"),
        ({"endpoint": f"http://127.0.0.1:{KEY}/v1"}, "is no address"),
        ({"key": KEY}, "NAME of an environment variable"),
        ({"key": KEY.replace("-", "_").upper()}, "is not set"),
        ({"key": "EMPTY_ONE"}, "is not set"),
    ],
)
def test_an_address_or_a_key_that_cannot_be_right_is_not_quoted(
    given: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMPTY_ONE", "")
    with pytest.raises(WeighinError, match=said) as found:
        client(Endpoint(**{"endpoint": "http://127.0.0.1:1/v1", "name": "x", **given}))
    assert "tell" not in str(found.value).lower()


# -- the model --------------------------------------------------------------------------------------------------


def test_a_text_is_scored_as_the_model_scores_it_here(server: Server, pico_dir: Path) -> None:
    there, here = model_of(server, pico_dir), TransformersModel(Checkpoint(pico_dir, "pico"))
    rows = [here.encode(text) for text in ("The old lantern hangs.", "Nobody knows who painted it.", "0 1 2 3")]
    ours = score(here, [Request(tuple(row), len(row) - 1) for row in rows])
    theirs = there.scores([(row, len(row) - 1) for row in rows])
    for mine, other in zip(ours, theirs, strict=True):
        assert other.logprobs == pytest.approx(mine.logprobs, abs=1e-4)
        assert other.greedy == mine.greedy
    assert there.generate(["The old lantern"], max_new_tokens=6) == here.generate(["The old lantern"], max_new_tokens=6)
    (text,) = there.generate(["The old lantern"], max_new_tokens=12)
    (cut,) = there.generate(["The old lantern"], max_new_tokens=12, stop=[text[3:5]])
    assert cut == text.split(text[3:5])[0]


def test_without_log_probabilities_it_says_why(server: Server, pico_dir: Path) -> None:
    server.meets("always:no-logprobs")
    model = model_of(server, pico_dir)
    with pytest.raises(Abstain, match="does not give log-probabilities of a given text") as found:
        model.scores([([1, 2, 3], 2)])
    assert KEY not in str(found.value)
    for hidden in (lambda: model.module, lambda: model.weight_bytes(), lambda: model.logprobs([[1]])):
        with pytest.raises(Abstain, match="behind a server"):
            hidden()


def test_the_key_of_a_model_is_what_the_server_says(
    server: Server, pico_dir: Path, half_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same server, same key, whatever time the listing tells; another answer, another name, another key."""
    here = Endpoint(endpoint=server.url, name="pico")
    first = settle(here, pico_dir)
    time.sleep(1.1)  # `created` is another now
    assert settle(here, pico_dir).key == first.key
    assert settle(Endpoint(endpoint=server.url + "/", name="pico"), pico_dir).key == first.key
    assert settle(here, None).key != first.key
    assert settle(Endpoint(endpoint=server.url, name="pico2"), pico_dir).key != first.key
    server.meets("always:other")
    assert settle(here, pico_dir).key != first.key
    with pytest.raises(WeighinError, match="answers otherwise"):
        EndpointModel(first)


# -- runs -------------------------------------------------------------------------------------------------------


def carry_out(document: dict[str, Any], where: Path) -> tuple[Store, Plan, bool]:
    store = Store(where)
    plan = make_plan(parse_spec(document), store)
    assert plan is not None
    with Display(Console(file=open(os.devnull, "w")), job_names(plan), {}) as display:
        _, ok = weigh(plan, store, display)
    return store, plan, ok


TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: {kind}
doc_to_text: "{{{{question}}}}"
{rest}
"""
CHOICES = 'doc_to_target: 0\ndoc_to_choice: ["river", "blue stones"]\nmetric_list: [{metric: acc}]'
WRITTEN = """doc_to_target: "{{answer}}"
generation_kwargs: {until: ["."], max_gen_toks: 8}
metric_list: [{metric: exact_match}]"""


@pytest.fixture
def tasks(tmp_path: Path) -> list[str]:
    data = tmp_path / "items.jsonl"
    rows = [{"question": f"A keeper counts {n} near the", "answer": "river"} for n in range(6)]
    data.write_text("\n".join(map(json.dumps, rows)))
    found = []
    for name, kind, rest in (("choose", "multiple_choice", CHOICES), ("write", "generate_until", WRITTEN)):
        path = tmp_path / f"{name}.yaml"
        path.write_text(TASK.format(name=name, data=data, kind=kind, rest=rest))
        found.append(str(path))
    return found


def values(store: Store, label: str, suite: str) -> dict[str, list[Any]]:
    rows = store.rows(
        """select s.metric, s.item, s.value from cells c join samples s using (evaluation_id)
           where c.label = ? and c.suite = ? order by all""",
        [label, suite],
    )
    return {m: [r["value"] for r in rows if r["metric"] == m] for m in {r["metric"] for r in rows}}


def document(server: Server, pico_dir: Path, tasks: list[str]) -> dict[str, Any]:
    named = {"url": server.url, "name": "pico", "key": "THEIR_KEY", "concurrency": 2, "tries": 2}
    return {
        "base": str(pico_dir),
        "variants": {"served": {"endpoint": named}},
        "suites": {
            "accuracy": {"tasks": tasks},
            "fidelity": {"tasks": tasks[:1], "samples": 4, "max_length": 48, "data": tasks[0]},
            "latency": {"requests": 6, "prompt_tokens": 16, "new_tokens": 8, "scenarios": ["single", "offline"]},
            "memory": None,
        },
    }


def test_a_served_variant_is_weighed_beside_its_parent(
    server: Server, pico_dir: Path, tasks: list[str], text_file: Path, tmp_path: Path
) -> None:
    spec = document(server, pico_dir, tasks)
    spec["suites"]["fidelity"]["data"] = str(text_file)
    store, _, ok = carry_out(spec, tmp_path / "w.duckdb")
    cells = store.rows("select label, suite, status, reason from cells order by all")
    assert ok, cells
    said = {(cell["label"], cell["suite"]): (cell["status"], cell["reason"]) for cell in cells}
    assert said["served", "memory"][0] == "abstained" and "behind a server" in said["served", "memory"][1]
    ours, theirs = values(store, "base", "accuracy"), values(store, "served", "accuracy")
    assert ours.keys() == theirs.keys() and {"choose/acc", "write/exact_match"} <= ours.keys()
    for metric, found in ours.items():
        assert theirs[metric] == pytest.approx(found, abs=1e-3), metric
    apart = values(store, "served", "fidelity")
    assert apart["ln_ppl_ratio_parent"] and max(map(abs, apart["ln_ppl_ratio_parent"])) < 1e-4
    assert set(apart["flips_parent"]) == {0.0} and apart["kl_parent"] == [None]
    times = values(store, "served", "latency")
    assert all(value > 0 for name in ("ttft", "tpot", "itl", "e2e", "throughput") for value in times[name])
    assert min(times["e2e"]) > max(0.0, min(times["ttft"])) and times["cpu_ratio_parent"] == [None]
    assert len(times["offline_throughput"]) == 6

    again = make_plan(parse_spec(spec), store)
    assert again is not None and not again.open_cells(), "what is held is not measured anew"
    server.meets("always:other")
    changed = make_plan(parse_spec(spec), store)
    assert changed is not None and {cell.label for cell in changed.open_cells()} == {"served"}
    _hidden(tmp_path)


@pytest.mark.slow
def test_a_server_that_changes_or_fails_on_the_way_fails_its_cell_and_nothing_is_kept(
    server: Server, pico_dir: Path, tasks: list[str], tmp_path: Path
) -> None:
    spec = document(server, pico_dir, tasks)
    spec["suites"] = {"accuracy": {"tasks": tasks}}
    store = Store(tmp_path / "w.duckdb")
    plan = make_plan(parse_spec(spec), store)
    assert plan is not None
    for fault, reason in (("always:other", "answers otherwise"), ("always:500", "HTTP 500")):
        server.meets(fault)
        with Display(Console(file=open(os.devnull, "w")), job_names(plan), {}) as display:
            run, ok = weigh(plan, store, display)
        (cell,) = store.rows("select * from cells where run_id = ? and label = 'served'", [run])
        assert not ok and cell["status"] == "failed" and reason in cell["reason"]
    assert values(store, "served", "accuracy") == {}
    _hidden(tmp_path)


def test_a_server_as_the_base_without_its_tokenizer_generates_and_does_not_score(
    server: Server, tasks: list[str], tmp_path: Path
) -> None:
    model = {"endpoint": server.url, "name": "pico", "key": "THEIR_KEY"}
    spec = {
        "base": {"model": model},
        "suites": {"accuracy": {"tasks": tasks}, "latency": {"requests": 6, "prompt_tokens": 12, "new_tokens": 4}},
    }
    store, plan, ok = carry_out(spec, tmp_path / "w.duckdb")
    assert ok and plan.spec.base.model == "pico"
    found = values(store, "base", "accuracy")
    assert found["choose/acc"] == [None] and len(found["write/exact_match"]) == 6
    (why,) = store.rows("select reason from samples where metric = 'choose/acc'")
    assert "its tokenizer is not known" in why["reason"]
    assert all(value > 0 for value in values(store, "base", "latency")["ttft"])
    _hidden(tmp_path)


def test_where_pieces_hold_several_tokens_no_gap_is_told(server: Server, pico_dir: Path) -> None:
    from weighin.suites.latency import latency

    model: Any = model_of(server, pico_dir)
    server.meets("always:pairs")
    found = list(latency(model, requests=6, prompt_tokens=8, new_tokens=8))
    by_name: dict[str, list[Any]] = {}
    for sample in found:
        by_name.setdefault(sample.metric.name if sample.metric else "", []).append(sample)
    assert by_name["itl"][0].value is None and "several tokens" in by_name["itl"][0].reason
    assert all(each.value > 0 for each in by_name["tpot"])


@pytest.fixture
def transformers_serve(pico_dir: Path, tmp_path: Path) -> Iterator[str]:
    """The server that transformers brings, started as a user would, with nothing in its cache."""
    if absent := [name for name in ("fastapi", "uvicorn", "openai") if importlib.util.find_spec(name) is None]:
        pytest.skip(f"needs {', '.join(absent)}: pip install 'transformers[serving]'")
    port = free_port()
    options = ["serve", str(pico_dir), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub"), "OMP_NUM_THREADS": "1"}
    with (tmp_path / "serve.out").open("w") as out:
        command = [sys.executable, "-m", "transformers.cli.transformers", *options]
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
    url = f"http://127.0.0.1:{port}"
    try:
        while True:
            assert process.poll() is None, (tmp_path / "serve.out").read_text()
            try:
                Client(url, tries=1).get("health")
                break
            except EndpointError:
                time.sleep(0.2)
        yield url
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_the_server_of_transformers_is_timed_and_generates_and_says_that_it_does_not_score(
    transformers_serve: str, pico_dir: Path, tasks: list[str], text_file: Path, tmp_path: Path
) -> None:
    spec = {
        "base": str(pico_dir),
        "variants": {"served": {"endpoint": {"url": transformers_serve, "name": str(pico_dir)}}},
        "suites": {
            "accuracy": {"tasks": tasks},
            "fidelity": {"tasks": [], "samples": 4, "max_length": 48, "data": str(text_file)},
            "latency": {"requests": 6, "prompt_tokens": 12, "new_tokens": 6},
        },
    }
    store, _, ok = carry_out(spec, tmp_path / "w.duckdb")
    assert ok, store.rows("select label, suite, reason from cells")
    ours, theirs = values(store, "base", "accuracy"), values(store, "served", "accuracy")
    assert theirs["write/exact_match"] == ours["write/exact_match"] and theirs["choose/acc"] == [None]
    (cell,) = store.rows("select * from cells where label = 'served' and suite = 'fidelity'")
    assert cell["status"] == "abstained" and "does not give log-probabilities" in cell["reason"]
    times = values(store, "served", "latency")
    assert all(value > 0 for name in ("ttft", "e2e", "throughput") for value in times[name])
    with_ids, here = Client(transformers_serve + "/v1"), TransformersModel(Checkpoint(pico_dir, "pico"))
    body = {"model": str(pico_dir), "prompt": "The old lantern", "max_tokens": 6, "temperature": 0}
    assert [with_ids.post("completions", body)["choices"][0]["text"]] == here.generate(
        ["The old lantern"], max_new_tokens=6
    )


def test_a_spec_says_where_a_server_is_wrong() -> None:
    suites = {"suites": {"memory": None}}
    for base, said in (
        ({"model": {"endpoint": "http://127.0.0.1:1/v1"}}, "base.model.name: Field required"),
        ({"model": {"endpoint": "x", "name": "y", "api_key": KEY}}, "base.model.api_key: no such parameter"),
        ({"endpoint": "http://127.0.0.1:1/v1", "name": "x"}, "a server stands below model:"),
    ):
        with pytest.raises(SpecError, match=said) as found:
            parse_spec({"base": base, **suites})
        assert KEY not in str(found.value)


def _hidden(folder: Path) -> None:
    """No file of a run holds the key: store, logs, checkpoints, spec echo."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "faults"]
    assert len(files) > 5 and any(path.suffix == ".log" for path in files)
    for path in files:
        assert KEY.encode() not in path.read_bytes(), path
