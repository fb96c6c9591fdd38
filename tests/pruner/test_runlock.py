"""A run's directory belongs to one process at a time, and to nobody once that process is gone."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lut.errors import RunError
from pruner.runlock import LOCK, held

pytest.importorskip("fcntl")

HOLD = """
import sys
from pathlib import Path
from pruner.runlock import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""
FORK = """
import os, sys
from pathlib import Path
from pruner.runlock import held
with held(Path(sys.argv[1])):
    loader = os.fork()
    if loader == 0:  # as a data loader's process does: it outlives its parent
        sys.stdin.readline()
        os._exit(0)
    print(loader, flush=True)
    os.waitpid(loader, 0)
"""
COUNT = """
import sys
from pathlib import Path
from lut.errors import RunError
from pruner.runlock import held
folder, count = Path(sys.argv[1]), Path(sys.argv[2])
done = 0
while done < 30:
    try:
        with held(folder):
            before = int(count.read_text())
            (folder / "mine").touch(exist_ok=False)
            count.write_text(str(before + 1))
            (folder / "mine").unlink()
            done += 1
    except RunError:
        pass
"""


@contextmanager
def running(source: str, *arguments: Path) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-c", source, *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def said(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_second_process_is_refused_and_told_who_holds_the_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with running(HOLD, run) as process:
        assert said(process) == "held"
        with pytest.raises(RunError, match=f"process {process.pid} on {socket.gethostname()}") as error, held(run):
            pass
        assert "\n" not in str(error.value)
        assert [path.name for path in run.iterdir()] == [LOCK]
        process.communicate("\n")
        assert process.returncode == 0
        assert not run.exists()


def test_a_second_run_of_the_same_process_is_refused(tmp_path: Path) -> None:
    with held(tmp_path), pytest.raises(RunError, match=f"process {os.getpid()} "), held(tmp_path):
        pass


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with running(HOLD, run) as process:
        assert said(process) == "held"
        process.kill()
        process.wait()
    assert (run / LOCK).exists()
    with held(run):
        (run / "state.json").touch()
    assert [path.name for path in run.iterdir()] == ["state.json"]


def test_what_a_killed_process_forked_holds_nothing(tmp_path: Path) -> None:
    with running(FORK, tmp_path / "run") as process:
        loader = int(said(process))
        process.kill()
        process.wait()
        os.kill(loader, 0)  # it still runs
        with held(tmp_path / "run"):
            pass
        os.kill(loader, signal.SIGKILL)


def test_however_many_want_a_run_only_one_is_in_it(tmp_path: Path) -> None:
    count = tmp_path / "count"
    count.write_text("0")
    folder = tmp_path / "deep" / "run"
    with (
        running(COUNT, folder, count) as one,
        running(COUNT, folder, count) as two,
        running(COUNT, folder, count) as three,
    ):
        assert [process.wait(60) for process in (one, two, three)] == [0, 0, 0]
    assert count.read_text() == "90"


def test_only_what_was_made_for_the_run_is_removed(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with held(tmp_path / "mine" / "deep" / "run"):
        pass
    assert [path.name for path in tmp_path.rglob("*")] == ["mine"]


def test_a_directory_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(RunError, match="is a file"), held(tmp_path / "thesis.tex"):
        pass
    with pytest.raises(RunError, match="cannot be written"), held(tmp_path / "thesis.tex" / "run"):
        pass
