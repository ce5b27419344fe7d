"""Values on their way into the database and out of it: JSON as text, times in UTC."""

import dataclasses
import json
from collections.abc import Mapping
from datetime import UTC
from typing import Any


def row_values(row: Any) -> list[Any]:
    """A row's fields in the order of the columns; what is no plain value as JSON text, keys sorted."""
    values = [getattr(row, field.name) for field in dataclasses.fields(row)]
    return [_json(value) if isinstance(value, Mapping | list | tuple) else value for value in values]


def _json(value: Any) -> str:
    """What JSON does not know is kept as its text."""
    return json.dumps(value, sort_keys=True, default=str, ensure_ascii=False)


def python_values(values: Any, kind: str) -> list[Any]:
    """One column of DuckDB's type `kind` as Python objects."""
    found = values.tolist()
    if kind == "JSON":
        return [None if value is None else json.loads(value) for value in found]
    if kind == "TIMESTAMP WITH TIME ZONE":
        return [None if value is None else value.replace(tzinfo=UTC) for value in found]
    return list(found)
