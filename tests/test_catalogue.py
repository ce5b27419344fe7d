"""docs/stages.md says what the code says; its figures come from a run and nowhere else."""

from pathlib import Path

import pytest

from tests.stores import fill
from weighin.harness import registry
from weighin.harness.catalogue import allowed, described, page
from weighin.results.errors import WeighinError

PAGE = Path(__file__).resolve().parent.parent / "docs" / "stages.md"


def test_the_page_is_the_codes_own() -> None:
    assert described(PAGE.read_text(encoding="utf-8")) == described(page(None)), (
        "the stages have changed: run `make docs`"
    )


def test_every_stage_has_a_library_a_source_and_a_measured_row() -> None:
    text = PAGE.read_text(encoding="utf-8")
    sections = {part.split("\n", 1)[0]: part for part in text.split("\n## ")[1:]}
    ours = {name for name, entry in registry.entries("stage").items() if entry.module.startswith("weighin.")}
    assert set(sections) == ours
    for name, section in sections.items():
        assert "Library:" in section and "arXiv" in section and "Costs:" in section, name
        if not registry.stage(name).environment:  # else a row comes with a run of its sweep
            assert "<!-- measured -->" in section and " → " in section.split("<!-- measured -->")[1], name


def test_what_a_parameter_takes_is_told_in_words() -> None:
    fields = registry.stage("decode").parameters.model_fields
    assert allowed(fields["top_p"]) == "number > 0, ≤ 1 or none"
    assert allowed(fields["shots"]) == "list of text"
    assert allowed(registry.stage("speculate").parameters.model_fields["draft"]) == "variant or model or none"
    assert allowed(registry.stage("gptq").parameters.model_fields["group_size"]) == "whole number > 0 or -1"


def test_a_store_without_the_run_is_refused(tmp_path: Path) -> None:
    store = fill(tmp_path / "w.duckdb", {})
    with pytest.raises(WeighinError, match="holds no run of lifecycle"):
        page(store)
