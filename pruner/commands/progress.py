"""Progress on stderr: bars with pace and time left on a terminal, now and then a plain line elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TaskID, TextColumn
from rich.progress import Progress as Bars
from rich.table import Column

from profiler.progress import Event, Progress

EVERY_S = 5.0
"""Least time between two plain lines of one stage (its first line and its end come at once)."""


@contextlib.contextmanager
def working() -> Iterator[Progress]:
    """Give a callback that shows progress; meanwhile what a task prints goes to stderr: stdout is for results."""
    with contextlib.redirect_stdout(sys.stderr):
        if sys.stderr.isatty():
            with BarProgress(Console(stderr=True)).shown() as progress:
                yield progress
        else:
            lines = LineProgress(_write_line)
            try:
                yield lines
            finally:
                lines.finish()


@dataclass
class Pace:
    """How fast a stage goes, from its first event on; a stage that starts again is timed anew."""

    started_s: float
    first: int
    done: int

    def text(self, event: Event, now_s: float) -> str:
        """The rate and the time left, as far as they are known."""
        if event.done < self.done:
            self.started_s, self.first = now_s, event.done
        self.done = event.done
        count, seconds = event.done - self.first, now_s - self.started_s
        if count <= 0 or seconds <= 0:
            return ""
        if event.total == 1:
            return f"took {duration(seconds)}"
        each = seconds / count
        rate = f"{1 / each:.3g}/s" if each < 1 else f"{each:.3g} s each"
        if event.total is None or event.done >= event.total:
            return f"{rate}, {duration(seconds)} so far" if event.total is None else f"{rate}, took {duration(seconds)}"
        return f"{rate}, {duration(each * (event.total - event.done))} left"


def duration(seconds: float) -> str:
    """A time span in words: "42 s", "3 min 5 s", "2 h 10 min"."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class LineProgress:
    """Plain lines: a stage's first event and its end at once, the others at most every few seconds.

    Args:
        write: takes one line.
        clock: in seconds.
        every_s: least time between two lines of a stage.
    """

    def __init__(
        self, write: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic, every_s: float = EVERY_S
    ) -> None:
        self._write = write
        self._clock = clock
        self._every_s = every_s
        self._paces: dict[str, Pace] = {}
        self._written_s: dict[str, float] = {}
        self._ended: set[str] = set()
        self._held: str | None = None

    def __call__(self, event: Event) -> None:
        """Take an event, and write it or hold it back."""
        now = self._clock()
        pace = self._paces.setdefault(event.stage, Pace(now, event.done, event.done))
        line = _line(event, pace.text(event, now))
        first_end = event.total is not None and event.done >= event.total and event.stage not in self._ended
        if first_end:
            self._ended.add(event.stage)
        if first_end or now - self._written_s.get(event.stage, -self._every_s) >= self._every_s:
            self._written_s[event.stage] = now
            self._write(line)
            self._held = None
        else:
            self._held = line

    def finish(self) -> None:
        """Write what was held back last."""
        if self._held is not None:
            self._write(self._held)
            self._held = None


class BarProgress:
    """A bar a stage, drawn by Rich.

    Args:
        console: of stderr.
        clock: in seconds.
    """

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._bars = Bars(
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TextColumn("{task.fields[pace]}", markup=False),
            TextColumn(
                "{task.fields[note]}", markup=False, table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")
            ),
            console=console,
            expand=True,
        )
        self._clock = clock
        self._tasks: dict[str, tuple[TaskID, Pace]] = {}
        self._now: str | None = None

    @contextlib.contextmanager
    def shown(self) -> Iterator[Progress]:
        """Draw while the work goes on; the last state stays."""
        with self._bars:
            yield self
            self._settle()

    def __call__(self, event: Event) -> None:
        """Take an event, and move its stage's bar."""
        now = self._clock()
        if event.stage != self._now:
            self._settle()
            self._now = event.stage
        if event.stage not in self._tasks:
            task = self._bars.add_task(event.stage, total=event.total, pace="", note="")
            self._tasks[event.stage] = task, Pace(now, event.done, event.done)
        task, pace = self._tasks[event.stage]
        text = pace.text(event, now)
        self._bars.update(task, total=event.total, completed=event.done, pace=text, note=event.note)

    def _settle(self) -> None:
        """Stop the animation of a stage that has ended without ever telling its total."""
        if self._now is None:
            return
        task, pace = self._tasks[self._now]
        if any(own.id == task and own.total is None for own in self._bars.tasks):
            self._bars.update(task, total=max(pace.done, 1), completed=max(pace.done, 1))


def _line(event: Event, pace: str) -> str:
    count = f"{event.done}/{event.total}" if event.total is not None else str(event.done) if event.done else ""
    parts = ", ".join(filter(None, [count, pace]))
    return "".join([event.stage, f": {parts}" if parts else "", f" – {event.note}" if event.note else ""])


def _write_line(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201 - the command line's own output
