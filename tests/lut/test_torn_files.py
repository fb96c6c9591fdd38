"""A log that was cut off anywhere, as by a power failure, loses the newest rows alone; the table opens as it was."""

import os
import random
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lut import TableFile
from tests.lut.examples import CPU, row

ROOT = Path(__file__).parents[2]
COUNT = 25
CUTS = 30


@pytest.fixture
def unfolded(tmp_path: Path) -> tuple[Path, Path]:
    """A table and the log beside it, copied while a writer has both open: the rows stand in the log."""
    source, copy = tmp_path / "source", tmp_path / "copy"
    source.mkdir()
    with TableFile(source / "t.db", create=True) as file:
        for number in range(1, COUNT + 1):
            file.add_measurements(CPU, [row((number, 8), 1.0)])
        shutil.copytree(source, copy)
    return copy / "t.db", copy / "t.db-wal"


def test_a_log_cut_off_anywhere_loses_the_newest_rows_alone(unfolded: tuple[Path, Path], tmp_path: Path) -> None:
    table, log = unfolded
    whole, draw = log.read_bytes(), random.Random(0)
    kept_before = COUNT
    for size in sorted((draw.randrange(len(whole)) for _ in range(CUTS)), reverse=True):
        folder = tmp_path / str(size)
        folder.mkdir()
        shutil.copy(table, folder / "t.db")
        (folder / "t.db-wal").write_bytes(whole[:size])
        with TableFile(folder / "t.db") as file:
            kept = [found.spec.channels[0] for found in file.measurements(CPU)]
            file.add_measurements(CPU, [row((99, 8), 1.0)])
        assert kept == list(range(1, len(kept) + 1))
        assert len(kept) <= kept_before
        kept_before = len(kept)
    assert kept_before < COUNT


def test_a_log_with_a_torn_page_ends_there(unfolded: tuple[Path, Path]) -> None:
    table, log = unfolded
    data = bytearray(log.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 100] = os.urandom(100)
    log.write_bytes(data)
    with TableFile(table) as file:
        kept = [found.spec.channels[0] for found in file.measurements(CPU)]
    assert kept == list(range(1, len(kept) + 1))
    assert 0 < len(kept) < COUNT


LIMITED = """
import resource, sys
from lut import TableError, TableFile
from tests.lut.examples import CPU, row
file = TableFile(sys.argv[1], create=True)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    for number in range(1, 10_000):
        file.add_measurements(CPU, [row((number, 8), 1.0)])
        finished = number
except TableError as error:
    sys.stdout.write(f"{finished}\\n{error}\\n")
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="no limit on the size of files here")
@pytest.mark.parametrize("limit", [100_000, 150_001])
def test_a_write_that_fails_halfway_is_said_in_two_lines_and_keeps_what_was_finished(
    tmp_path: Path, limit: int
) -> None:
    path = tmp_path / "t.db"
    command = [sys.executable, "-c", LIMITED, str(path), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    finished, what, advice = done.stdout.splitlines()
    assert "could not be written" in what
    assert "the finished rows are kept" in advice
    with TableFile(path) as file:
        assert [found.spec.channels[0] for found in file.measurements(CPU)] == list(range(1, int(finished) + 1))
        file.add_measurements(CPU, [row((1, 9), 1.0)])


def test_a_table_without_its_log_is_what_was_folded_in_last(unfolded: tuple[Path, Path]) -> None:
    table, log = unfolded
    log.unlink()
    Path(f"{table}-shm").unlink(missing_ok=True)
    with TableFile(table) as file:
        assert file.fingerprints() == []
