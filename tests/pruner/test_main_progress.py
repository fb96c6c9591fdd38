"""Progress is seldom and complete on plain lines, and a bar a stage on a terminal."""

import io

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from profiler.progress import Event
from pruner.commands.progress import BarProgress, LineProgress, duration


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def played(events: list[tuple[float, Event]]) -> list[str]:
    """The lines that events at these times become."""
    clock, lines = Clock(), list[str]()
    progress = LineProgress(lines.append, clock=clock, every_s=5.0)
    for at, event in events:
        clock.now = at
        progress(event)
    progress.finish()
    return lines


def test_a_stage_shows_its_start_its_end_and_little_between() -> None:
    lines = played([(number / 10, Event("measure", number, 100, "note")) for number in range(101)])
    assert lines[0] == "measure: 0/100 – note"
    assert lines[1] == "measure: 50/100, 10/s, 5.0 s left – note"
    assert lines[2:] == ["measure: 100/100, 10/s, took 10 s – note"]


def test_slow_work_tells_seconds_each() -> None:
    assert played([(0, Event("build", 0, 3)), (60, Event("build", 1, 3))])[1] == "build: 1/3, 60 s each, 2 min 0 s left"


def test_a_stage_without_a_total_tells_what_is_known() -> None:
    lines = played([(0, Event("train", 0)), (6, Event("train", 3, note="loss 0.2"))])
    assert lines == ["train", "train: 3, 2 s each, 6.0 s so far – loss 0.2"]


def test_the_last_event_is_written_whatever_came_before() -> None:
    lines = played([(0, Event("train", 0, 10)), (0.1, Event("train", 1, 10)), (0.2, Event("train", 2, 10))])
    assert lines == ["train: 0/10", "train: 2/10, 10/s, 0.8 s left"]


def test_a_stage_that_starts_again_is_timed_anew() -> None:
    events = [(0.0, Event("tune", 0, 2)), (10.0, Event("tune", 2, 2)), (20.0, Event("tune", 0, 2))]
    assert played([*events, (21.0, Event("tune", 1, 2))])[-1] == "tune: 1/2, 1 s each, 1.0 s left"


@given(st.lists(st.tuples(st.floats(0, 3), st.sampled_from("ab"), st.integers(0, 5)), max_size=60))
def test_plain_lines_are_never_many(steps: list[tuple[float, str, int]]) -> None:
    now, events = 0.0, []
    for pause, stage, done in steps:
        now += pause
        events.append((now, Event(stage, done, 5)))
    # a line each 5 s a stage; beside these, for two stages, the first and the end of each, and the last line of all
    assert len(played(events)) <= 2 * (now / 5.0 + 2) + 1


def test_bars_show_stage_pace_and_note_as_they_are_written() -> None:
    clock, out = Clock(), io.StringIO()
    bars = BarProgress(Console(file=out, force_terminal=True, width=120), clock=clock)
    with bars.shown() as progress:
        progress(Event("measure [all]", 0, 4))
        clock.now += 2
        progress(Event("measure [all]", 4, 4, "predicted 3.1 ms"))
        progress(Event("fine-tune", 1))
    last = out.getvalue()
    for text in ("measure [all]", "2/s, took 2.0 s", "predicted 3.1 ms", "fine-tune", "4/4", "1/1"):
        assert text in last


def test_durations_are_said_in_words() -> None:
    assert [duration(s) for s in (0.04, 9.96, 42, 185, 7800)] == ["0.0 s", "10 s", "42 s", "3 min 5 s", "2 h 10 min"]
