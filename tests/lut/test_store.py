"""The table's file: what goes in comes out, whatever happens to the writer; a foreign file is left alone."""

import multiprocessing
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lut import (
    DeviceFingerprint,
    LatpruneError,
    MeasureConfig,
    Measurement,
    NetworkMeasurement,
    TableError,
    TableFile,
    UnitFamily,
    UnitSpec,
    open_table,
)
from lut.schema import MIGRATIONS
from tests.lut.examples import CPU, GPU, convolution, network_row, row

ROOT = Path(__file__).parents[2]

texts = st.text(max_size=12)
counts = st.integers(0, 2**40)
times = st.floats(1e-6, 1e6)
maybe_times = st.none() | times
scalars = st.integers(-(2**40), 2**40) | texts | st.booleans() | st.floats(allow_nan=False, allow_infinity=False)
attributes = st.lists(st.tuples(texts, scalars | st.lists(scalars, max_size=3).map(tuple)), max_size=3).map(tuple)
shapes = st.lists(st.lists(st.integers(1, 999) | st.sampled_from(["c0", "c1"]), max_size=4).map(tuple), max_size=2)
samples = st.lists(times, max_size=5).map(tuple)
configs = st.builds(MeasureConfig, warmup_s=times, min_samples=counts, cache=st.sampled_from(["warm", "cold"]))
families = st.builds(
    UnitFamily, texts, texts, shapes.map(tuple), shapes.map(tuple), attributes, st.lists(texts, max_size=2).map(tuple)
)
measurements = st.builds(
    Measurement,
    spec=st.builds(UnitSpec, families, st.lists(counts, max_size=4).map(tuple)),
    config=configs,
    samples_ms=samples,
    median_ms=maybe_times,
    noise=maybe_times,
    place=st.sampled_from(["in place", "corrected", "isolated"]),
    weights_bytes=st.none() | counts,
    clocks_mhz=maybe_times,
    discarded=counts,
    failure=st.none() | texts,
)
networks = st.builds(
    NetworkMeasurement,
    network=texts,
    widths=st.lists(st.tuples(texts, counts), max_size=4).map(tuple),
    config=configs,
    samples_ms=samples,
    median_ms=maybe_times,
    noise=maybe_times,
    units_ms=maybe_times,
    discarded=counts,
    failure=st.none() | texts,
    precision=st.none() | texts,
)
fingerprints = st.builds(DeviceFingerprint, texts, texts, texts, threads=st.none() | counts, settings=attributes)


@settings(max_examples=60, deadline=None)
@given(fingerprints, st.lists(measurements, max_size=4), networks)
def test_what_is_written_is_read_back_equal(
    fingerprint: DeviceFingerprint, rows: list[Measurement], network: NetworkMeasurement
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.db"
        with TableFile(path, create=True) as file:
            file.add_measurements(fingerprint, rows)
            file.add_network(fingerprint, network, rows)
        with TableFile(path) as file:
            assert file.fingerprints() == [fingerprint]
            assert file.measurements(fingerprint) == rows + rows
            assert file.networks(fingerprint) == [network]


def test_fingerprints_never_mix(tmp_path: Path) -> None:
    with TableFile(tmp_path / "t.db", create=True) as file:
        file.add_measurements(CPU, [row((8, 8), 1.0)])
        file.add_measurements(GPU, [row((8, 8), 0.1)])
        file.add_network(GPU, network_row({"a": 8}, 2.0))
        assert file.fingerprints() == [CPU, GPU]
        assert file.measurements(CPU) == [row((8, 8), 1.0)]
        assert file.networks(CPU) == []
        assert file.networks(GPU, "another") == []
        assert len(file.networks(GPU, "net")) == 1


def test_a_closed_table_is_one_file_and_bears_its_identity(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    with TableFile(path, create=True) as file:
        file.add_measurements(CPU, [row((8, 8), 1.0)])
    assert list(tmp_path.iterdir()) == [path]
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


WRITER = """
import sys
from lut import TableFile
from tests.lut.examples import CPU, row
with TableFile(sys.argv[1], create=True) as file:
    for number in range(int(sys.argv[2]), int(sys.argv[3])):
        file.add_measurements(CPU, [row((number, 8), 1.0)])
        print(number, flush=True)
"""


def _writer(path: Path, first: int, last: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(path), str(first), str(last)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def test_a_killed_writer_loses_no_finished_measurement(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    process = _writer(path, 1, 10**9)
    assert process.stdout is not None
    finished = [int(process.stdout.readline()) for _ in range(20)]
    process.send_signal(signal.SIGKILL)
    finished += [int(line) for line in process.stdout.read().split("\n")[:-1]]
    process.stdout.close()
    process.wait()
    with TableFile(path) as file:
        kept = [found.spec.channels[0] for found in file.measurements(CPU)]
        file.add_measurements(CPU, [row((5, 5), 1.0)])
    assert kept[: len(finished)] == finished
    assert len(kept) <= len(finished) + 1


def test_two_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    processes = [_writer(path, 1, 101), _writer(path, 101, 201)]
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    with TableFile(path) as file:
        assert sorted(found.spec.channels[0] for found in file.measurements(CPU)) == list(range(1, 201))
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_transaction_leaves_nothing_of_itself(tmp_path: Path) -> None:
    def rows() -> list[Measurement]:
        raise KeyboardInterrupt

    with TableFile(tmp_path / "t.db", create=True) as file:
        with pytest.raises(KeyboardInterrupt):
            file.add_network(CPU, network_row({"a": 8}, 2.0), (found for _ in range(2) for found in rows()))
        assert file.networks(CPU) == []
        assert file.fingerprints() == []


def _foreign(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.executescript("CREATE TABLE t (a); INSERT INTO t VALUES (1);")
    connection.close()


def _newer(path: Path) -> None:
    TableFile(path, create=True).close()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    connection.close()


def _filled(path: Path) -> None:
    with TableFile(path, create=True) as file:
        file.add_measurements(CPU, [row((number, 8), 1.0) for number in range(1, 200)])


def _truncated(path: Path) -> None:
    _filled(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _overwritten(path: Path) -> None:
    _filled(path)
    data = bytearray(path.read_bytes())
    data[8192:-4096] = os.urandom(len(data) - 8192 - 4096)
    path.write_bytes(data)


DAMAGED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a text": (lambda path: path.write_text("hello, world\n" * 50), "not an SQLite file"),
    "an empty file": (lambda path: path.write_bytes(b""), "it is empty"),
    "a cut header": (lambda path: path.write_bytes(b"SQLite format 3\x00" + bytes(20)), "not an SQLite file"),
    "another program's database": (_foreign, "another program's"),
    "a newer table": (_newer, "newer latprune"),
    "a truncated table": (_truncated, "damaged"),
    "an overwritten table": (_overwritten, "damaged"),
}


@pytest.mark.parametrize("create", [False, True])
@pytest.mark.parametrize("name", DAMAGED)
def test_a_file_that_is_no_good_table_is_refused_and_left_as_it_is(tmp_path: Path, name: str, create: bool) -> None:
    make, expected = DAMAGED[name]
    path = tmp_path / "t.db"
    make(path)
    before = path.read_bytes()
    with pytest.raises(TableError, match=expected) as caught:
        TableFile(path, create=create)
    assert str(caught.value).count("\n") <= 1
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_row_that_makes_no_record_is_the_files_fault(tmp_path: Path) -> None:
    _filled(tmp_path / "t.db")
    connection = sqlite3.connect(tmp_path / "t.db")
    connection.execute("UPDATE measurements SET channels = 'nonsense' WHERE id = 7")
    connection.commit()
    connection.close()
    with pytest.raises(TableError, match="damaged"):
        open_table(tmp_path / "t.db")


def test_a_missing_file_or_directory_is_named_and_nothing_is_made(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="there is no table"):
        TableFile(tmp_path / "t.db")
    with pytest.raises(TableError, match="no directory"):
        TableFile(tmp_path / "nowhere" / "t.db", create=True)
    with pytest.raises(TableError, match="is a directory"):
        TableFile(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_creation_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA max_page_count = 1")
        connection.execute("CREATE TABLE t (a)")

    monkeypatch.setattr("lut.store.migrate", full)
    with pytest.raises(TableError, match="disk is full"):
        TableFile(tmp_path / "t.db", create=True)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_said_in_words_and_finished_rows_are_kept(tmp_path: Path) -> None:
    with TableFile(tmp_path / "t.db", create=True) as file:
        file.add_measurements(CPU, [row((8, 8), 1.0)])
        (pages,) = file._connection.execute("PRAGMA page_count").fetchone()
        file._connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(TableError, match="disk is full"):
            file.add_measurements(CPU, [row((number, 8), 1.0) for number in range(1000)])
        assert len(file.measurements(CPU)) == 1


def _use_read_only(path: str, results: "multiprocessing.Queue[str]") -> None:
    if os.geteuid() == 0:
        os.setuid(65534)  # rights mean nothing to root
    with TableFile(path) as file:
        results.put(str(len(file.measurements(CPU))))
    try:
        with TableFile(path) as file:
            file.add_measurements(CPU, [row((8, 8), 1.0)])
    except LatpruneError as error:
        results.put(str(error))
    try:
        TableFile(Path(path).parent / "new.db", create=True)
    except LatpruneError as error:
        results.put(str(error))


def test_a_read_only_table_in_a_read_only_directory_is_read_but_not_written() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _filled(folder / "t.db")
        (folder / "t.db").chmod(stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH)
        folder.chmod(0o555)
        context = multiprocessing.get_context("fork")
        results: multiprocessing.Queue[str] = context.Queue()
        process = context.Process(target=_use_read_only, args=(str(folder / "t.db"), results))
        process.start()
        process.join()
        folder.chmod(0o755)
        assert process.exitcode == 0
        assert results.get() == "199"
        assert "cannot be written" in results.get()
        assert "cannot be made" in results.get()
        assert [found.name for found in folder.iterdir()] == ["t.db"]


def test_families_in_the_file_are_kept_once(tmp_path: Path) -> None:
    with TableFile(tmp_path / "t.db", create=True) as file:
        file.add_measurements(CPU, [row((8, 8), 1.0), row((8, 9), 1.0), row((8, 8), 1.0, convolution(5))])
        assert file._connection.execute("SELECT count(*) FROM families").fetchone() == (2,)
