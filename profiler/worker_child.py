"""A worker's process as its parent holds it: started, written to, read from by threads, and reaped."""

import os
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path
from typing import IO

import profiler

LAST_WORDS = 5
"""Lines of the child's standard error that a failure quotes."""
PATIENCE_S = 5.0
"""How long a child may take to end once its input has."""


class Child:
    """One worker process and the threads that read from it."""

    def __init__(self) -> None:
        root = str(Path(profiler.__file__).parent.parent)
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "profiler.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            env=os.environ | {"PYTHONPATH": path},
            start_new_session=True,
        )
        self.replies: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.last_words: deque[str] = deque(maxlen=LAST_WORDS)
        self._readers = [
            threading.Thread(target=self._read_replies, args=(self.process.stdout,), daemon=True),
            threading.Thread(target=self._read_errors, args=(self.process.stderr,), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def _read_replies(self, stream: IO[str]) -> None:
        for line in stream:
            self.replies.put(line)
        self.replies.put(None)

    def _read_errors(self, stream: IO[str]) -> None:
        self.last_words.extend(stream)

    def send(self, line: str) -> None:
        """Write one request; raises `OSError` when the child is gone."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def end(self, *, kill: bool) -> int:
        """Stop the process, reap it and its threads, and return its exit status."""
        if kill:
            self.process.kill()
        streams = [self.process.stdin, self.process.stdout, self.process.stderr]
        assert streams[0] is not None
        try:
            streams[0].close()
        except OSError:
            self.process.kill()
        try:
            status = self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        for reader in self._readers:
            reader.join(PATIENCE_S)
        for stream in streams[1:]:
            assert stream is not None
            stream.close()
        return status


def signal_name(number: int) -> str:
    """Name a signal, or say its number where it has no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
