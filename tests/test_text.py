"""Where a stage's documents come from, in which order, and what is said when there are none."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from weighin.harness.text import WORLD, Form, documents, encode, rows, text_files
from weighin.results.errors import WeighinError


def write(path: Path, *rows: Any) -> str:
    path.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    return str(path)


def test_a_line_is_a_document(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\r\n\ntwo\u2028still two\n", encoding="utf-8")
    assert sorted(documents(str(tmp_path / "a.txt"), samples=None, seed=0)) == ["one", "two\u2028still two"]


def test_rows_keep_their_text_under_text_or_page(tmp_path: Path) -> None:
    data = write(tmp_path / "a.jsonl", {"text": "one"}, {"page": "two"}, {"text": "three", "page": "four"})
    assert sorted(documents(data, samples=None, seed=0)) == ["one", "three", "two"]


def test_the_seed_draws_the_order(tmp_path: Path) -> None:
    data = write(tmp_path / "a.jsonl", *({"text": str(n)} for n in range(50)))
    first = documents(data, samples=10, seed=0)
    assert first == documents(data, samples=10, seed=0) == documents(data, samples=None, seed=0)[:10]
    assert len(set(first)) == 10 and first != documents(data, samples=10, seed=1)
    assert len(documents(data, samples=500, seed=0)) == 50


def test_a_local_data_set_reads_like_one_of_the_hub(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", {"text": "one"}, {"text": "two"})
    write(tmp_path / "test.jsonl", {"text": "three"})
    assert sorted(documents(f"hub:{tmp_path}", samples=None, seed=0)) == ["one", "two"]
    assert documents(f"hub:{tmp_path}::test", samples=None, seed=0) == ["three"]
    assert len(documents(f"hub:{tmp_path}:default:train[:1]", samples=None, seed=0)) == 1
    assert text_files({"data": f"hub:{tmp_path}"}) == [tmp_path / "test.jsonl", tmp_path / "train.jsonl"]
    assert text_files({"data": "hub:some/name@main"}) == []
    with pytest.raises(WeighinError, match=r"cannot be loaded .*valid"):
        documents(f"hub:{tmp_path}::valid", samples=None, seed=0)


PAIR: Form = {"prompt": (str,), "chosen": (str, list), "label": (bool,)}
TEXT: Form = {"text": (str,)}
SAID = [{"role": "user", "content": "why?"}, {"role": "assistant", "content": "because"}]


def test_rows_come_in_the_order_of_the_seed_with_their_columns_and_no_others(tmp_path: Path) -> None:
    found = [{"prompt": f"{n}", "chosen": "a", "label": n % 2 == 0, "id": n} for n in range(50)]
    data = write(tmp_path / "a.jsonl", *found)
    first = rows(data, samples=10, seed=0, forms=[TEXT, PAIR])
    assert first == rows(data, samples=None, seed=0, forms=[PAIR])[:10] and len(first) == 10
    assert first != rows(data, samples=10, seed=1, forms=[PAIR])
    for where, row in first:
        assert where == f"{data}:{int(row['prompt']) + 1}"
        assert row == {name: found[int(row["prompt"])][name] for name in PAIR}


def test_the_first_row_decides_which_form_all_have(tmp_path: Path) -> None:
    both = write(tmp_path / "both.jsonl", {"text": "a", "prompt": "p", "chosen": "c", "label": True}, {"text": "b"})
    assert [row["text"] for _, row in sorted(rows(both, samples=None, seed=0, forms=[TEXT, PAIR]))] == ["a", "b"]
    with pytest.raises(WeighinError, match=r"both.jsonl:2 has no 'prompt', 'chosen', 'label'"):
        rows(both, samples=1, seed=0, forms=[PAIR, TEXT])
    (tmp_path / "a.txt").write_text("one\n\ntwo\n")
    assert {row["text"] for _, row in rows(str(tmp_path / "a.txt"), samples=None, seed=0, forms=[PAIR, TEXT])} == {
        "one",
        "two",
    }


def test_rows_of_the_hub_are_read_alike(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", {"prompt": "p", "chosen": SAID, "label": False})
    ((where, row),) = rows(f"hub:{tmp_path}", samples=None, seed=0, forms=[PAIR])
    assert row == {"prompt": "p", "chosen": SAID, "label": False} and where == f"hub:{tmp_path} row 0"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"prompt": "p", "chosen": "c"},
            r"a.jsonl:1 has no 'label'; its keys are \['chosen', 'prompt'\]. Needed: 'prompt'",
        ),
        ({"text": "t"}, "a.jsonl:1 has no 'prompt', 'chosen', 'label'; .*Needed: 'prompt', 'chosen', 'label'$"),
        ({"prompt": 3, "chosen": "c", "label": True}, "a.jsonl:1: 'prompt' is 3. Needed: text$"),
        ({"prompt": " ", "chosen": "c", "label": True}, "a.jsonl:1: 'prompt' is ' '. Needed: text$"),
        ({"prompt": "p", "chosen": "c", "label": 1}, "a.jsonl:1: 'label' is 1. Needed: true or false"),
        ({"prompt": "p", "chosen": ["c"], "label": True}, "'chosen' is .'c'.. Needed: text or a list of messages"),
        ({"prompt": "p", "chosen": [], "label": True}, "a list of messages with 'role' and 'content'"),
    ],
)
def test_rows_of_another_shape_are_named(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(WeighinError, match=message):
        rows(write(tmp_path / "a.jsonl", row), samples=None, seed=0, forms=[PAIR])


def test_a_file_without_rows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("\n")
    with pytest.raises(WeighinError, match=r"a.jsonl holds no rows"):
        rows(str(tmp_path / "a.jsonl"), samples=None, seed=0, forms=[PAIR])


@pytest.mark.parametrize("name", ["calibration_text", "tune"])
def test_reference_text_comes_with_the_package(name: str) -> None:
    assert text_files({"data": f"reference:{name}"}) == [WORLD / f"{name}.jsonl"]
    assert len(documents(f"reference:{name}", samples=64, seed=0)) == 64


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "\n  \n", "a.txt holds no text"),
        ("a.jsonl", "", "a.jsonl holds no text"),
        ("a.jsonl", '{"text": "one"}\n{"text": ', "a.jsonl:2 is not JSON"),
        ("a.jsonl", '["one"]', "a.jsonl:1 is no JSON object"),
        ("a.jsonl", '{"question": "one"}', "a.jsonl:1 has no text under 'text' or 'page'; its keys are .'question'."),
        ("a.txt", b"\xff\xfe", "a.txt is not UTF-8"),
        ("a.csv", "text\none", "a.csv ends in .csv. Allowed: reference:NAME, a .txt or .jsonl file, or hub:"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(WeighinError, match=message):
        documents(str(tmp_path / name), samples=None, seed=0)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("nowhere.txt", "no file nowhere.txt. Allowed: reference:NAME, a .txt"),
        ("reference:nothing", "no reference text 'nothing'. Allowed: "),
        ("hub:", "hub: names no data set. Allowed: "),
    ],
)
def test_names_of_nothing_are_refused(data: str, message: str) -> None:
    with pytest.raises(WeighinError, match=message):
        documents(data, samples=None, seed=0)
    if not data.startswith("hub:"):
        with pytest.raises(WeighinError, match=message):
            text_files({"data": data})


def test_documents_are_cut_and_those_of_one_token_left_out(pico_dir: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(pico_dir)
    (row,) = encode(tokenizer, ["The old lantern", ""], 3)
    assert row == tokenizer("The old lantern")["input_ids"][:3] and row[0] == tokenizer.bos_token_id
    with pytest.raises(WeighinError, match="no document is longer than one token"):
        encode(tokenizer, ["The old lantern"], 1)
