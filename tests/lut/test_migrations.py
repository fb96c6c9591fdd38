"""A table made by any older version opens and keeps its rows; such files are built here with the first migrations."""

import contextlib
import json
import sqlite3
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from lut import TableError, TableFile, canonical_json, open_table
from lut.merge import merge
from lut.schema import APPLICATION_ID, MIGRATIONS
from tests.lut.examples import CONFIG, CPU, GPU, convolution, network_row, row

ROWS = [row((8, 8), 1.0), row((16, 8), 1.5), row((8, 8), 0.3, convolution(1))]
NETWORKS = [network_row({"a": 8, "b": 16}, 2.0), network_row({"a": 4, "b": 16}, 1.5)]
NAMES = [migration.name for migration in MIGRATIONS]


def make_older(path: Path, version: int) -> Path:
    """A file as the latprune of that version left it; rows are written in its own words, not by today's code."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        for migration in MIGRATIONS[:version]:
            for statement in migration.statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {version}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("BEGIN")
        connection.execute("INSERT INTO fingerprints VALUES (?, ?)", (CPU.key, canonical_json(CPU.to_json())))
        for family in (convolution(), convolution(1)):
            connection.execute("INSERT INTO families VALUES (?, ?)", (family.key, canonical_json(family.to_json())))
        if version >= 2:
            for found in ROWS:
                values = [CPU.key, found.spec.family.key, json.dumps(found.spec.channels), json.dumps(asdict(CONFIG))]
                samples = np.array(found.samples_ms, dtype="<f8").tobytes()
                connection.execute(
                    "INSERT INTO measurements (fingerprint, family, channels, config, samples_ms, median_ms, noise,"
                    " place, discarded) VALUES (?, ?, ?, ?, ?, ?, ?, 'in place', 0)",
                    [*values, samples, found.median_ms, found.noise],
                )
        if version >= 3:
            for net in NETWORKS:
                values = [CPU.key, net.network, json.dumps(net.widths), json.dumps(asdict(CONFIG))]
                samples = np.array(net.samples_ms, dtype="<f8").tobytes()
                connection.execute(
                    "INSERT INTO networks (fingerprint, network, widths, config, samples_ms, median_ms, noise,"
                    " discarded) VALUES (?, ?, ?, ?, ?, ?, ?, 0)",
                    [*values, samples, net.median_ms, net.noise],
                )
        connection.execute("COMMIT")
    return path


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS) + 1))
def test_an_older_file_opens_keeps_its_rows_and_takes_new_ones(tmp_path: Path, version: int) -> None:
    path = make_older(tmp_path / "t.db", version)
    old_rows, old_networks = ROWS if version >= 2 else [], NETWORKS if version >= 3 else []
    with TableFile(path) as file:
        assert file.fingerprints() == [CPU]
        assert file.measurements(CPU) == old_rows
        assert file.networks(CPU) == old_networks
        file.add_network(CPU, NETWORKS[0], ROWS)
        file.add_measurements(GPU, ROWS)
    with TableFile(path) as file:
        assert file.measurements(CPU) == old_rows + ROWS
        assert file.networks(CPU) == [*old_networks, NETWORKS[0]]
        assert file.measurements(GPU) == ROWS
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)


@pytest.mark.parametrize("version", range(2, len(MIGRATIONS) + 1))
def test_an_older_file_answers_and_merges_like_a_new_one(tmp_path: Path, version: int) -> None:
    path = make_older(tmp_path / "old.db", version)
    assert open_table(path).estimate(ROWS[0].spec).ms == pytest.approx(1.0, rel=0.05)
    with TableFile(tmp_path / "new.db", create=True) as file:
        file.add_measurements(CPU, ROWS)
    report = merge([path, tmp_path / "new.db"], tmp_path / "both.db")
    assert (report.files[1].rows, report.files[1].identical) == (0, len(ROWS))


def test_an_older_file_that_cannot_be_migrated_is_left_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_older(tmp_path / "t.db", 2)

    def fail(connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(MIGRATIONS[2].statements[0])
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("lut.store.migrate", fail)
        with pytest.raises(KeyboardInterrupt):
            TableFile(path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)
        assert connection.execute("SELECT name FROM sqlite_schema WHERE name = 'networks'").fetchall() == []
    with TableFile(path) as file:
        assert file.measurements(CPU) == ROWS


def test_an_older_file_that_cannot_be_written_is_read_all_the_same_and_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_older(tmp_path / "t.db", 2)
    before = path.read_bytes()

    def connect(found: Path) -> sqlite3.Connection:
        return sqlite3.connect(f"{found.as_uri()}?mode=ro&immutable=1", uri=True, isolation_level=None)

    monkeypatch.setattr("lut.store._connect", connect)
    with TableFile(path) as file:
        assert file.measurements(CPU) == ROWS
        assert file.networks(CPU) == []
        with pytest.raises(TableError, match="cannot be written"):
            file.add_measurements(CPU, ROWS)
        assert file.measurements(CPU) == ROWS
    assert path.read_bytes() == before


def test_migrations_that_were_released_stay_as_they_are() -> None:
    assert NAMES[:3] == ["fingerprints_and_families", "measurements", "networks"]
    assert len(NAMES) == len(set(NAMES))
