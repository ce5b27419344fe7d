"""The board as files: whole, without a server, a script or an address of another place, whatever labels say."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.boards import HOSTILE, RUDE_REASON, weigh
from tests.stores import fill, shares
from weighin.harness.cli import main
from weighin.results.errors import WeighinError
from weighin.results.store import Store

pytest.importorskip("altair", reason="the pages need altair: pip install 'weighin[board]'")
pytest.importorskip("vl_convert", reason="pictures as files need vl-convert: pip install 'weighin[board]'")

from weighin.leaderboard.static import write


class Seen(HTMLParser):
    """The elements and attributes of a document, and what it says."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.given: list[tuple[str, str | None]] = []
        self.said: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.given += attrs

    def handle_data(self, data: str) -> None:
        self.said.append(data)


def read(path: Path) -> Seen:
    seen = Seen()
    seen.feed(path.read_text(encoding="utf-8"))
    return seen


def test_hostile_labels_stay_text_and_nothing_leads_outside(tmp_path: Path) -> None:
    files = write(weigh(tmp_path / "w.duckdb"), tmp_path / "out")
    assert {file.name for file in files} == {path.name for path in (tmp_path / "out").iterdir()}
    assert len(files) == 6 + 4
    for file in files:
        seen = read(file)
        assert not {"script", "img", "iframe", "link", "object", "form"} & set(seen.tags), file.name
        assert not [name for name, _ in seen.given if name.startswith("on")]
        links = [value or "" for name, value in seen.given if name in ("href", "src", "xlink:href")]
        assert links and all(re.fullmatch(r"[a-z]+(-\d+)?\.html|#[\w-]+", link) for link in links), file.name
        assert seen.tags.count("nav") == 1 and seen.tags.count("h1") == 1
        named = [value for name, value in seen.given if name == "http-equiv"]
        assert named == ["Content-Security-Policy"]
    told = "".join(read(tmp_path / "out" / "leaderboard.html").said)
    assert HOSTILE in told and RUDE_REASON in told


def test_the_files_hold_the_tables_and_the_charts(tmp_path: Path) -> None:
    write(weigh(tmp_path / "w.duckdb"), tmp_path / "out")
    pareto, first = read(tmp_path / "out" / "pareto.html"), read(tmp_path / "out" / "variant-1.html")
    assert "svg" in pareto.tags and "586 KiB · n 1" in pareto.said
    board = read(tmp_path / "out" / "leaderboard.html")
    assert board.tags.count("svg") == 3, "one picture for each variant with an accuracy"
    assert "0.750 [0.705, 0.790] · n 400" in board.said
    assert "The release fails: at least one gate rule does." in read(tmp_path / "out" / "index.html").said
    assert any(
        text.startswith("Of 3 metrics that both have, int8 is shown to be worse than base in 0") for text in first.said
    )


def test_the_verb_writes_them_and_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = fill(tmp_path / "w.duckdb", {"base": {"accuracy": shares([1, 0] * 4)}})
    out = tmp_path / "site" / "board"
    assert main(["board", "--static", str(out), "--store", str(store.path)]) == 0
    assert capsys.readouterr().out == f"7 pages, begin with {out / 'index.html'}\n"
    assert main(["board", "--static", str(out), "--store", str(tmp_path / "none.duckdb")]) != 0
    assert "there is no store yet" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    with pytest.raises(WeighinError, match="cannot be written"):
        write(Store(store.path), tmp_path / "file" / "x")
