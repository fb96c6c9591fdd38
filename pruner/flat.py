"""Records of a table as flat columns, and columns as CSV (standard library) or Parquet (pyarrow, extra `parquet`)."""

import csv
import importlib
import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_type_hints

from lut import (
    DeviceFingerprint,
    LatpruneError,
    MeasureConfig,
    Measurement,
    NetworkMeasurement,
    UnitFamily,
    canonical_json,
)
from pruner.atomic import replacing

SUFFIXES = (".csv", ".parquet")

Kind = Literal["text", "int", "float"]
Content = tuple[DeviceFingerprint, Sequence[Measurement], Sequence[NetworkMeasurement]]


class FlatError(LatpruneError):
    """Rows cannot be written into this file."""


@dataclass(frozen=True)
class Column:
    """One column; None stands where there is no value."""

    name: str
    kind: Kind
    values: list[Any]


def check_target(path: Path) -> None:
    """Make sure that a file can be written, before the work for it.

    Raises:
        FlatError: its name tells no format, there is no such folder, or the format's library is not installed.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise FlatError(f"{path}: its name tells no format.\nPossible are {', '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise FlatError(f"{path} cannot be written: there is no folder {path.parent}.\nMake it: mkdir -p {path.parent}")
    if path.suffix.lower() == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise FlatError(
            f'{path}: Parquet needs pyarrow, which is not installed.\nInstall it: pip install "latprune[parquet]", or '
            "write .csv"
        )


def unit_columns(contents: Iterable[Content], *, samples: bool = False) -> list[Column]:
    """One row a unit's measurement, in the table's order.

    Args:
        contents: fingerprints with their rows.
        samples: with the raw samples.
    """
    rows: list[tuple[dict[str, Any], Measurement]] = []
    for fingerprint, measurements, _ in contents:
        device = _device(fingerprint)
        families = {row.spec.family: _family(row.spec.family) for row in measurements}
        rows += [(device | families[row.spec.family], row) for row in measurements]
    coordinates = max((len(row.spec.channels) for _, row in rows), default=0)
    names = [f"c{number}" for number in range(coordinates)]
    flat = [
        known | dict(zip(names, row.spec.channels, strict=False)) | _row(row, ("spec",), samples=samples)
        for known, row in rows
    ]
    kinds = (
        _device_kinds() | _family_kinds() | dict.fromkeys(names, "int") | _row_kinds(Measurement, ("spec",), samples)
    )
    return _columns(kinds, flat)


def network_columns(contents: Iterable[Content], *, samples: bool = False) -> list[Column]:
    """One row a whole network's measurement, in the table's order; arguments as in `unit_columns`."""
    flat = [
        _device(fingerprint) | _row(row, (), samples=samples)
        for fingerprint, _, networks in contents
        for row in networks
    ]
    return _columns(_device_kinds() | _row_kinds(NetworkMeasurement, (), samples), flat)


def write_columns(columns: Sequence[Column], path: Path) -> None:
    """Write a file, whole or not at all.

    Raises:
        FlatError: see `check_target`; or the file cannot be written.
    """
    check_target(path)
    try:
        with replacing(path) as partial:
            (_write_csv if path.suffix.lower() == ".csv" else _write_parquet)(columns, partial)
    except OSError as error:
        raise FlatError(
            f"{path} cannot be written: {error.strerror or error}.\nMake room, or name another place"
        ) from error


def _write_csv(columns: Sequence[Column], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([column.name for column in columns])
        writer.writerows(zip(*(column.values for column in columns), strict=True))


def _write_parquet(columns: Sequence[Column], path: Path) -> None:
    arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    types = {"text": arrow.string(), "int": arrow.int64(), "float": arrow.float64()}
    arrays = {column.name: arrow.array(column.values, types[column.kind]) for column in columns}
    parquet.write_table(arrow.table(arrays), str(path))


def _device(fingerprint: DeviceFingerprint) -> dict[str, Any]:
    plain = _plain(asdict(fingerprint))
    return {"fingerprint": fingerprint.key, "fingerprint_name": str(fingerprint)} | plain


def _device_kinds() -> dict[str, Kind]:
    own: dict[str, Kind] = {"fingerprint": "text", "fingerprint_name": "text"}
    return own | _kinds(DeviceFingerprint)


def _family(family: UnitFamily) -> dict[str, Any]:
    return {"family": str(family), "family_key": family.key} | _plain(asdict(family))


def _family_kinds() -> dict[str, Kind]:
    own: dict[str, Kind] = {"family": "text", "family_key": "text"}
    return own | _kinds(UnitFamily)


def _row(row: Measurement | NetworkMeasurement, without: Sequence[str], *, samples: bool) -> dict[str, Any]:
    values = {item.name: getattr(row, item.name) for item in fields(row) if item.name not in (*without, "config")}
    found = values | {"samples": len(row.samples_ms)}
    if not samples:
        del found["samples_ms"]
    return _plain(found) | {f"config_{name}": value for name, value in asdict(row.config).items()}


def _row_kinds(record: type, without: Sequence[str], samples: bool) -> dict[str, Kind]:
    left_out = {*without, "config", *(() if samples else ("samples_ms",))}
    own: dict[str, Kind] = {name: kind for name, kind in _kinds(record).items() if name not in left_out}
    config: dict[str, Kind] = {f"config_{name}": kind for name, kind in _kinds(MeasureConfig).items()}
    return own | {"samples": "int"} | config


def _kinds(record: type) -> dict[str, Kind]:
    """For each of a record's fields the kind of column: a number where it is one (or None), else text."""
    hints = get_type_hints(record)
    kinds: dict[Any, Kind] = {int: "int", float: "float", int | None: "int", float | None: "float"}
    return {item.name: kinds.get(hints[item.name], "text") for item in fields(record)}


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as they can stand in a column: what has parts as JSON."""
    return {name: canonical_json(value) if isinstance(value, tuple | list) else value for name, value in values.items()}


def _columns(kinds: Mapping[str, Kind], rows: Sequence[Mapping[str, Any]]) -> list[Column]:
    return [Column(name, kind, [row.get(name) for row in rows]) for name, kind in kinds.items()]
