"""Whatever happens to a profiling session, what it said was finished is in the table, and the same command goes on."""

import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from lut import TableFile

pytest.importorskip("onnxruntime")

ROOT = Path(__file__).parents[2]
KILLS = 20
LONGEST_DELAY_S = 0.15
"""After an event, a session or worker is killed within that time: about as long as one network takes."""


class Server:
    """Starts sessions; see `tests.profiler.session_server`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.profiler.session_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        assert self.process.stdout is not None
        facts = json.loads(self.process.stdout.readline())
        self.units, self.network = facts["units"], facts["network"]
        self.sessions = 0

    def start(self, table: Path, networks: int, **limits: int) -> "Session":
        self.sessions += 1
        pipe = self.folder / f"events{self.sessions}"
        os.mkfifo(pipe)
        assert self.process.stdin is not None
        request = {"table": str(table), "events": str(pipe), "networks": networks} | limits
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return Session(pipe.open("rb", buffering=0))

    def finished(self, table: Path) -> int:
        """How many networks the table holds; each must have brought its units, all of them."""
        if not table.exists():
            return 0
        with TableFile(table) as file:
            prints = file.fingerprints()
            if not prints:
                return 0
            networks = [found for found in file.networks(prints[0], self.network) if found.failure is None]
            assert len(file.measurements(prints[0])) == len(networks) * self.units
            return len(networks)


class Session:
    """A session's events, as they come; `ended` once there will be no more."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self.pipe = pipe
        self.said: dict[str, Any] = {}
        self.ended = False
        self._rest = b""

    def events(self, until_s: float | None = None) -> Iterator[dict[str, Any]]:
        """What it says, until it ends or the clock shows that time."""
        while not self.ended:
            wait = None if until_s is None else max(0.0, until_s - time.monotonic())
            if not select.select([self.pipe], [], [], wait)[0]:
                return
            chunk = os.read(self.pipe.fileno(), 65536)
            self.ended = not chunk
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            for line in lines:
                words = json.loads(line)
                self.said |= words
                yield words
        self.pipe.close()

    def finish(self) -> dict[str, Any]:
        """Wait for its end, and return all that it said last."""
        for _ in self.events():
            pass
        return self.said

    def kill_after(self, number: int, delay_s: float, victim: Callable[["Session"], int]) -> None:
        """SIGKILL one of its processes within a delay after that many events."""
        for count, _ in enumerate(self.events(), start=1):
            if count >= number:
                break
        for _ in self.events(time.monotonic() + delay_s):
            pass
        if not self.ended:
            os.kill(victim(self), signal.SIGKILL)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    found = Server(tmp_path_factory.mktemp("sessions"))
    yield found
    assert found.process.stdin is not None
    found.process.stdin.close()
    found.process.wait(60)
    assert found.process.stdout is not None
    found.process.stdout.close()


def test_sessions_killed_at_random_moments_lose_nothing_and_are_gone_on_with(server: Server, tmp_path: Path) -> None:
    table, draw = tmp_path / "t.db", random.Random(0)
    held = 0
    for _ in range(KILLS):
        session = server.start(table, 10_000)
        session.kill_after(draw.randint(1, 5), draw.uniform(0, LONGEST_DELAY_S), lambda own: own.said["session"])
        reported = session.finish().get("finished", 0)
        before, held = held, server.finished(table)
        assert held >= max(reported, before)
        assert held <= max(reported, before) + 1
    assert held >= KILLS // 4
    said = server.start(table, held + 1).finish()
    assert (said["reused"], said["measured"], said["failed"]) == (held, 1, 0)
    assert server.finished(table) == held + 1
    assert list(tmp_path.iterdir()) == [table]


def test_workers_killed_at_random_moments_cost_their_network_and_nothing_else(server: Server, tmp_path: Path) -> None:
    table, draw = tmp_path / "t.db", random.Random(1)
    kills = 0
    session = server.start(table, 10_000)
    while kills < KILLS:
        held, killed = server.finished(table), session.said.get("worker")
        for words in session.events():
            if session.said.get("worker") != killed and ("finished" in words or draw.random() < 0.5):
                break
        for _ in session.events(time.monotonic() + draw.uniform(0, LONGEST_DELAY_S)):
            pass
        if session.ended:  # too many failures, or the first network failed: the user's error, and the same command
            assert "SIGKILL" in session.said["error"]
            session = server.start(table, 10_000)
            continue
        os.kill(session.said["worker"], signal.SIGKILL)
        kills += 1
        assert server.finished(table) >= max(held, session.said.get("finished", 0))
    os.kill(session.said["session"], signal.SIGKILL)
    session.finish()
    held = server.finished(table)
    with TableFile(table) as file:
        (fingerprint,) = file.fingerprints()
        failures = [found.failure for found in file.networks(fingerprint) if found.failure is not None]
    assert failures
    assert all("SIGKILL" in failure for failure in failures)
    said = server.start(table, held + 1).finish()
    assert (said["reused"], said["measured"], said["failed"]) == (held, 1, 0)


def test_two_profilers_on_one_new_file_lose_nothing(server: Server, tmp_path: Path) -> None:
    table = tmp_path / "t.db"
    sessions = [server.start(table, 5) for _ in range(2)]
    said = [session.finish() for session in sessions]
    assert [one["failed"] for one in said] == [0, 0]
    assert all(one["measured"] + one["reused"] == 5 for one in said)
    assert server.finished(table) == sum(one["measured"] for one in said)


def test_a_limit_on_the_files_size_is_said_and_what_was_finished_stays(server: Server, tmp_path: Path) -> None:
    table = tmp_path / "t.db"
    said = server.start(table, 10_000, file_bytes=200_000).finish()
    assert "could not be written" in said["error"]
    assert "Make room and run again" in said["error"]
    held = server.finished(table)
    assert held == said["finished"]
    again = server.start(table, held + 1).finish()
    assert (again["reused"], again["measured"]) == (held, 1)
