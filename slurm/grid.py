"""A stage's grid -> the points of its sweep, in a fixed order."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from neobert.config import ConfigError, nearest
from neobert.config.base import KeyPath

MAX_POINTS = 100_000
"""More than any queue takes; the points of a larger grid would fill the memory before anyone could see them."""


@dataclass(frozen=True, slots=True)
class Point:
    """One point: dotted config keys and their values, and for each key the place in the grid that it comes from."""

    values: dict[str, Any]
    paths: dict[str, KeyPath]


def expand(grid: dict[str, Any] | list[Any] | None, path: KeyPath = ("grid",)) -> list[Point]:
    """All points of a grid, the last axis varying fastest; no grid is one point without values.

    A mapping is a product over its axes. An axis is a dotted config key with a list of values, or several keys with a
    comma between them and a list of rows: these vary together. `exclude` lists points, given by some of their keys, to
    leave out; `include` lists points to add. A list is the points themselves. Raises `ConfigError`.
    """
    if grid is None:
        return [Point({}, {})]
    points = list(_listed(grid, path) if isinstance(grid, list) else _product(grid, path))
    if not points:
        raise ConfigError.at(path, "is empty: it gives no trial")
    return points


def _product(grid: dict[str, Any], path: KeyPath) -> Iterator[Point]:
    axes = {key: values for key, values in grid.items() if key not in ("include", "exclude")}
    columns = [_axis(key, values, (*path, key)) for key, values in axes.items()]
    keys = [name for key in axes for name in _names(key)]
    repeated = {name for name in keys if keys.count(name) > 1}
    if repeated:
        raise ConfigError.at(path, f"'{min(repeated)}' stands in two axes")
    paths = {name: (*path, key) for key in axes for name in _names(key)}
    excluded = [point.values for point in _listed(grid.get("exclude", []), (*path, "exclude"))]
    for index, values in enumerate(excluded):
        for key in values:
            if key not in keys:
                raise ConfigError.at((*path, "exclude", index), f"'{key}' is no axis here{nearest(key, keys)}")
    count = math.prod(map(len, columns))
    if count > MAX_POINTS:
        sizes = " x ".join(str(len(column)) for column in columns)
        raise ConfigError.at(path, f"has {sizes} = {count:,} points; at most {MAX_POINTS:,} can be planned")
    if columns:
        for rows in itertools.product(*columns):
            point = {key: value for row in rows for key, value in row.items()}
            if not any(all(point[key] == value for key, value in values.items()) for values in excluded):
                yield Point(point, paths)
    yield from _listed(grid.get("include", []), (*path, "include"))


def _axis(key: str, values: Any, path: KeyPath) -> list[dict[str, Any]]:
    """The rows of an axis, each with a value for every key that it names."""
    if not isinstance(values, list):
        raise ConfigError.at(path, f"expected a list of values, found {values!r}; a fixed value belongs in config")
    if not values:
        raise ConfigError.at(path, "is empty: it gives no trial")
    names = _names(key)
    if "" in names or any("" in name.split(".") for name in names):
        raise ConfigError.at(path, f"'{key}' is no dotted key, nor several with commas between them")
    if len(names) == 1:
        return [{names[0]: value} for value in values]
    for index, row in enumerate(values):
        if not isinstance(row, list) or len(row) != len(names):
            raise ConfigError.at((*path, index), f"expected a row of {len(names)} values ({key}), found {row!r}")
    return [dict(zip(names, row, strict=True)) for row in values]


def _names(key: str) -> list[str]:
    return [name.strip() for name in str(key).split(",")]


def _listed(entries: Any, path: KeyPath) -> Iterator[Point]:
    if not isinstance(entries, list):
        raise ConfigError.at(path, f"expected a list of points, found {entries!r}")
    for index, entry in enumerate(entries):
        at = (*path, index)
        if not isinstance(entry, dict) or not entry or not all(isinstance(key, str) for key in entry):
            raise ConfigError.at(at, f"expected a point such as {{seed: 1}}, found {entry!r}")
        yield Point(dict(entry), {key: (*at, key) for key in entry})
