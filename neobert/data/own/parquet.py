"""Reads .parquet, as `datasets` and pandas write it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

from neobert.config.extras import install
from neobert.config.paths import why_missing
from neobert.data.examples import at


def read(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows, each with its place. Numbers of classes that `datasets` has named are read as their names."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise at(str(path), f"needs the package pyarrow: {install('train')}") from None
    try:
        with path.open("rb") as file:
            table = pyarrow.parquet.read_table(file)
    except (OSError, pyarrow.ArrowException) as error:
        if path.is_file() and not getattr(error, "errno", None):
            raise at(str(path), f"is damaged, or not what its name says: {str(error).splitlines()[0]}") from None
        raise at(str(path), f"cannot be read: {getattr(error, 'strerror', error)}{why_missing(path)}") from None
    names = _class_names(table.schema.metadata or {})
    for number, cells in enumerate(table.to_pylist()):
        yield f"{path}, row {number} (from 0)", {name: _named(value, names.get(name)) for name, value in cells.items()}


def _class_names(metadata: dict[bytes, bytes]) -> dict[str, list[str]]:
    """The names of classes, by column: `datasets` keeps them beside the numbers."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    labels = {name: feature for name, feature in features.items() if isinstance(feature, dict)}
    return {name: feature["names"] for name, feature in labels.items() if feature.get("_type") == "ClassLabel"}


def _named(value: Any, names: list[str] | None) -> Any:
    if names and isinstance(value, int) and 0 <= value < len(names):
        return names[value]
    if isinstance(value, Decimal):
        return float(value)
    return _decoded(value) if isinstance(value, bytes) else value


def _decoded(value: bytes) -> str | bytes:
    """Return texts as such: some programs, such as Impala, write them as bytes."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value
