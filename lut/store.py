"""The table's file: one SQLite database that several processes may read and write at once."""

import contextlib
import json
import os
import sqlite3
import struct
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from lut.errors import TableError
from lut.records import DeviceFingerprint, Measurement, NetworkMeasurement, canonical_json
from lut.schema import (
    APPLICATION_ID,
    MIGRATIONS,
    insert_measurements,
    insert_network,
    migrate,
    select_measurements,
    select_networks,
)

BUSY_TIMEOUT_S = 60.0
"""How long a writer waits for another one to finish its transaction."""

_UNWRITTEN = ("SQLITE_IOERR_WRITE", "SQLITE_IOERR_FSYNC", "SQLITE_IOERR_TRUNCATE", "SQLITE_IOERR_SHMSIZE")
_MAGIC = b"SQLite format 3\x00"


class TableFile:
    """An open table; a context manager.

    Writing is durable against a killed process: what a method has written when it returns is in the file.
    """

    def __init__(self, path: str | os.PathLike[str], *, create: bool = False) -> None:
        """Open a table, for reading and (where the file allows it) writing.

        Args:
            path: of the file.
            create: make the file if there is none; when that fails no file is left.

        Raises:
            TableError: there is no such file, it is no table, it is damaged, or it is too new. It is then unchanged.
        """
        self.path = Path(path)
        if not self.path.exists():
            if not create:
                raise TableError(f"there is no table {self.path}.\nMake it: latprune profile TASK --table {self.path}")
            _create(self.path)
        check_header(self.path)
        with self._explained():
            self._connection = _connect(self.path)
        try:
            self._prepare()
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self) -> None:
        with self._explained():
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
            if version > len(MIGRATIONS):
                raise _too_new(self.path, version)
            (verdict,) = self._connection.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise _damaged(self.path, verdict)
            if version < len(MIGRATIONS):
                self._migrate()

    def _migrate(self) -> None:
        """Bring an older file up to date; one that cannot be written is read from a copy in memory."""
        try:
            migrate(self._connection)
        except sqlite3.OperationalError as error:
            if not error.sqlite_errorname.startswith("SQLITE_READONLY"):
                raise
            copy = sqlite3.connect(":memory:", isolation_level=None)
            self._connection.backup(copy)
            self._connection.close()
            self._connection = copy
            migrate(copy)
            copy.execute("PRAGMA query_only = ON")  # what is added must not vanish with the copy

    def close(self) -> None:
        """Close the file; the last process to do so folds the write-ahead log into it."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def add_measurements(self, fingerprint: DeviceFingerprint, measurements: Iterable[Measurement]) -> None:
        """Add units' rows, all of them or none, in one transaction.

        Raises:
            TableError: the file cannot be written (read-only, disk full, locked); it is then as it was.
        """
        with self.transaction():
            insert_measurements(self._connection, self._add_fingerprint(fingerprint), measurements)

    def add_network(
        self, fingerprint: DeviceFingerprint, network: NetworkMeasurement, measurements: Iterable[Measurement] = ()
    ) -> None:
        """Add a whole network's row and the unit rows of the same run, all of them or none, in one transaction.

        Raises:
            TableError: the file cannot be written (read-only, disk full, locked); it is then as it was.
        """
        with self.transaction():
            key = self._add_fingerprint(fingerprint)
            insert_network(self._connection, key, network)
            insert_measurements(self._connection, key, measurements)

    def fingerprints(self) -> list[DeviceFingerprint]:
        """The fingerprints that the file holds rows of, oldest first."""
        with self._explained():
            rows = self._connection.execute("SELECT data FROM fingerprints ORDER BY rowid").fetchall()
            return [DeviceFingerprint.from_json(json.loads(data)) for (data,) in rows]

    def measurements(self, fingerprint: DeviceFingerprint) -> list[Measurement]:
        """A fingerprint's unit rows, failures too, in the order in which they were added."""
        with self._explained():
            return select_measurements(self._connection, fingerprint.key)

    def networks(self, fingerprint: DeviceFingerprint, network: str | None = None) -> list[NetworkMeasurement]:
        """A fingerprint's whole-network rows, of one network (by hash) or of all, in the order of adding."""
        with self._explained():
            rows = select_networks(self._connection, fingerprint.key)
        return [row for row in rows if network is None or row.network == network]

    def _add_fingerprint(self, fingerprint: DeviceFingerprint) -> str:
        data = canonical_json(fingerprint.to_json())
        statement = "INSERT OR IGNORE INTO fingerprints (key, data) VALUES (?, ?)"
        self._connection.execute(statement, (fingerprint.key, data))
        return fingerprint.key

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Make what is added inside one transaction: all of it is in the file in the end, or nothing.

        Raises:
            TableError: the file cannot be written (read-only, disk full, locked); it is then as it was.
        """
        if self._connection.in_transaction:
            yield
            return
        with self._explained(decoding=False):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _explained(self, *, decoding: bool = True) -> Iterator[None]:
        """Turn SQLite's errors, and with `decoding` those of rows that make no record, into the user's."""
        try:
            yield
        except sqlite3.OperationalError as error:
            raise _explain(self.path, error) from error
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorname.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
                raise _damaged(self.path, str(error)) from error
            raise
        except (ValueError, TypeError, KeyError, UnicodeDecodeError) as error:
            if not decoding:
                raise
            raise _damaged(self.path, f"a row cannot be read: {error!r}") from error


def check_header(path: Path) -> None:
    """Look at a file's first 100 bytes without opening it as a database, so that a foreign file stays as it is.

    Raises:
        TableError: it is not a table, or one that a newer latprune has written.
    """
    try:
        with path.open("rb") as file:
            header = file.read(100)
    except IsADirectoryError as error:
        raise TableError(f"{path} is a directory, not a table.\nName a file: --table {path / 'device.db'}") from error
    except OSError as error:
        raise TableError(f"{path} cannot be read: {error.strerror}.\nName another, or change its rights") from error
    if len(header) < 100 or not header.startswith(_MAGIC):
        found = "it is empty" if not header else "it is not an SQLite file"
        raise TableError(f"{path} is not a latency table: {found}.\nName another file; this one was left as it is")
    user_version, application_id = struct.unpack_from(">I4xI", header, 60)
    if application_id != APPLICATION_ID:
        raise TableError(
            f"{path} is another program's SQLite file (application_id {application_id:#x}), not a latency table.\n"
            "Name another file; this one was left as it is"
        )
    if user_version > len(MIGRATIONS):
        raise _too_new(path, user_version)


def _create(path: Path) -> None:
    """Make an empty table beside its place, then link it there: other processes see a whole table or none."""
    if not path.parent.is_dir():
        raise TableError(f"{path} cannot be made: no directory {path.parent}.\nMake it: mkdir -p {path.parent}")
    if sqlite3.sqlite_version_info < (3, 37):
        raise TableError(f"tables need SQLite 3.37; Python has {sqlite3.sqlite_version} here.\nUse a newer Python")
    try:
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            draft = Path(folder) / "new.db"
            with contextlib.closing(sqlite3.connect(draft, isolation_level=None)) as connection:
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                migrate(connection)
                connection.execute("PRAGMA journal_mode = WAL")
            _put(draft, path)
    except sqlite3.OperationalError as error:
        raise _explain(path, error) from error
    except OSError as error:
        raise TableError(f"{path} cannot be made: {error.strerror}.\nName a place that can be written") from error


def _put(draft: Path, path: Path) -> None:
    try:
        path.hardlink_to(draft)
    except FileExistsError:
        return  # another process was faster: its table serves as well
    except OSError:
        draft.rename(path)  # a file system without hard links


def _connect(path: Path) -> sqlite3.Connection:
    """Connect and read once; from a directory that cannot be written, where there is no log, read without locks."""
    uri = path.resolve().as_uri()
    connection = sqlite3.connect(f"{uri}?mode=rw", uri=True, isolation_level=None, timeout=BUSY_TIMEOUT_S)
    try:
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        return connection
    except sqlite3.OperationalError as error:
        connection.close()
        if not error.sqlite_errorname.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN")):
            raise
        log = Path(f"{path}-wal")
        if log.exists() and log.stat().st_size:
            raise TableError(
                f"{path} has unfinished writes in {log.name}, and {path.parent} cannot be written.\n"
                "Copy both files to a place that can be written, and read them there"
            ) from error
    except BaseException:
        connection.close()
        raise
    return sqlite3.connect(f"{uri}?mode=ro&immutable=1", uri=True, isolation_level=None)


def _explain(path: Path, error: sqlite3.OperationalError) -> Exception:
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith("SQLITE_FULL"):
        return TableError(
            f"{path} could not be written: the disk is full.\nMake room and run again: the finished rows are kept"
        )
    if name.startswith(_UNWRITTEN):
        return TableError(
            f"{path} could not be written: {error} (a full disk, a quota, or a limit on the size of files).\n"
            "Make room and run again: the finished rows are kept"
        )
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
        return TableError(f"{path} cannot be written: {error}.\nChange its rights, or copy it to where you may write")
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return TableError(
            f"{path} is locked: another process has been writing for {BUSY_TIMEOUT_S:.0f} s.\nEnd it, then run again"
        )
    if name.startswith(("SQLITE_IOERR", "SQLITE_PROTOCOL")):
        return TableError(f"{path} cannot be used: {error}.\nTables want a local disk, not a network's")
    return _damaged(path, str(error)) if name == "SQLITE_ERROR" and "no such" in str(error) else error


def _damaged(path: Path, found: str) -> TableError:
    in_a_line = " ".join(found.split())
    return TableError(f"{path} is damaged: {in_a_line}.\nTake it from a copy, or delete it and profile again")


def _too_new(path: Path, version: int) -> TableError:
    return TableError(
        f"{path} was written by a newer latprune (version {version} of the file; this one knows {len(MIGRATIONS)}).\n"
        "Install the newer latprune: pip install --upgrade latprune"
    )
