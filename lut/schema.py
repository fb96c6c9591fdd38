"""What stands in a table's SQLite file: its identity, its migrations, and how records become rows and rows records."""

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any, NamedTuple, cast

import numpy as np

from lut.records import (
    MeasureConfig,
    Measurement,
    NetworkMeasurement,
    UnitFamily,
    UnitSpec,
    canonical_json,
    freeze_value,
)

APPLICATION_ID = 0x6C617470
"""Stands in the header of every table ("latp"), so that no other program's file is taken for one."""


class Migration(NamedTuple):
    """One named change of the schema; `user_version` counts how many a file has had."""

    name: str
    statements: tuple[str, ...]


MIGRATIONS: tuple[Migration, ...] = (
    Migration(
        "fingerprints_and_families",
        (
            "CREATE TABLE fingerprints (key TEXT PRIMARY KEY, data TEXT NOT NULL) STRICT",
            "CREATE TABLE families (key TEXT PRIMARY KEY, data TEXT NOT NULL) STRICT",
        ),
    ),
    Migration(
        "measurements",
        (
            """CREATE TABLE measurements (
                id INTEGER PRIMARY KEY,
                fingerprint TEXT NOT NULL REFERENCES fingerprints (key),
                family TEXT NOT NULL REFERENCES families (key),
                channels TEXT NOT NULL, config TEXT NOT NULL, samples_ms BLOB NOT NULL,
                median_ms REAL, noise REAL, place TEXT NOT NULL,
                weights_bytes INTEGER, activation_bytes INTEGER, workspace_bytes INTEGER,
                clocks_mhz REAL, discarded INTEGER NOT NULL, failure TEXT) STRICT""",
            "CREATE INDEX measurements_by_fingerprint ON measurements (fingerprint)",
        ),
    ),
    Migration(
        "networks",
        (
            """CREATE TABLE networks (
                id INTEGER PRIMARY KEY,
                fingerprint TEXT NOT NULL REFERENCES fingerprints (key),
                network TEXT NOT NULL, widths TEXT NOT NULL, config TEXT NOT NULL, samples_ms BLOB NOT NULL,
                median_ms REAL, noise REAL, units_ms REAL, discarded INTEGER NOT NULL, failure TEXT,
                precision TEXT) STRICT""",
            "CREATE INDEX networks_by_fingerprint ON networks (fingerprint, network)",
        ),
    ),
    Migration(
        "kernels_and_forms",
        (
            "ALTER TABLE measurements ADD COLUMN kernels TEXT NOT NULL DEFAULT '[]'",
            "ALTER TABLE networks ADD COLUMN forms TEXT NOT NULL DEFAULT '[]'",
        ),
    ),
    Migration(
        "memory_of_networks",
        tuple(
            f"ALTER TABLE networks ADD COLUMN {name} INTEGER"
            for name in ("weights_bytes", "activation_bytes", "workspace_bytes")
        ),
    ),
)

_MEASUREMENT = [
    *("median_ms", "noise", "place", "weights_bytes", "activation_bytes", "workspace_bytes"),
    *("clocks_mhz", "discarded", "failure"),
]
_NETWORK = [
    *("median_ms", "noise", "units_ms", "discarded", "failure", "precision"),
    *("weights_bytes", "activation_bytes", "workspace_bytes"),
]


def migrate(connection: sqlite3.Connection) -> None:
    """Apply in one transaction the migrations that the open file has not had."""
    connection.execute("BEGIN IMMEDIATE")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    for migration in MIGRATIONS[version:]:
        for statement in migration.statements:
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    connection.execute("COMMIT")


def insert_measurements(connection: sqlite3.Connection, fingerprint: str, rows: Iterable[Measurement]) -> None:
    """Insert rows, and their families where they are new, inside the caller's transaction."""
    names = ["fingerprint", "family", "channels", "config", "samples_ms", "kernels", *_MEASUREMENT]
    statement = _insert("measurements", names)
    for row in rows:
        family = row.spec.family
        data = canonical_json(family.to_json())
        connection.execute("INSERT OR IGNORE INTO families (key, data) VALUES (?, ?)", (family.key, data))
        values = [fingerprint, family.key, canonical_json(row.spec.channels), canonical_json(asdict(row.config))]
        rest = [getattr(row, name) for name in _MEASUREMENT]
        connection.execute(statement, [*values, _pack(row.samples_ms), canonical_json(row.kernels), *rest])


def insert_network(connection: sqlite3.Connection, fingerprint: str, row: NetworkMeasurement) -> None:
    """Insert one whole network's row inside the caller's transaction."""
    names = ["fingerprint", "network", "widths", "config", "samples_ms", "forms", *_NETWORK]
    values = [fingerprint, row.network, canonical_json(row.widths), canonical_json(asdict(row.config))]
    rest = [getattr(row, name) for name in _NETWORK]
    packed = [_pack(row.samples_ms), canonical_json(row.forms)]
    connection.execute(_insert("networks", names), [*values, *packed, *rest])


def select_measurements(connection: sqlite3.Connection, fingerprint: str) -> list[Measurement]:
    """All of a fingerprint's rows, in the order in which they were added."""
    data = connection.execute("SELECT key, data FROM families")
    families = {key: UnitFamily.from_json(json.loads(text)) for key, text in data}
    configs: dict[str, MeasureConfig] = {}
    query = _select("measurements", ["family", "channels", "config", "samples_ms", "kernels", *_MEASUREMENT])
    found = []
    for family, channels, config, samples, kernels, *rest in connection.execute(query, [fingerprint]):
        spec = UnitSpec(families[family], tuple(json.loads(channels)))
        values = dict(zip(_MEASUREMENT, rest, strict=True)) | {"kernels": freeze_value(json.loads(kernels))}
        found.append(Measurement(spec, _config(configs, config), _unpack(samples), **values))
    return found


def select_networks(connection: sqlite3.Connection, fingerprint: str) -> list[NetworkMeasurement]:
    """All of a fingerprint's whole networks, in the order in which they were added."""
    configs: dict[str, MeasureConfig] = {}
    query = _select("networks", ["network", "widths", "config", "samples_ms", "forms", *_NETWORK])
    found = []
    for network, text, config, samples, forms, *rest in connection.execute(query, [fingerprint]):
        widths = tuple((group, kept) for group, kept in json.loads(text))
        values = dict(zip(_NETWORK, rest, strict=True)) | {"forms": freeze_value(json.loads(forms))}
        found.append(NetworkMeasurement(network, widths, _config(configs, config), _unpack(samples), **values))
    return found


def _insert(table: str, names: list[str]) -> str:
    return f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"


def _select(table: str, names: list[str]) -> str:
    return f"SELECT {', '.join(names)} FROM {table} WHERE fingerprint = ? ORDER BY id"


def _config(known: dict[str, MeasureConfig], text: str) -> MeasureConfig:
    if text not in known:
        known[text] = MeasureConfig(**cast(dict[str, Any], json.loads(text)))
    return known[text]


def _pack(samples_ms: tuple[float, ...]) -> bytes:
    return np.asarray(samples_ms, dtype="<f8").tobytes()


def _unpack(samples: bytes) -> tuple[float, ...]:
    return tuple(np.frombuffer(samples, dtype="<f8").tolist())
