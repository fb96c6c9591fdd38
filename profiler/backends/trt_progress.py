"""How far TensorRT's builder is, from its nested phases, as one fraction."""

from dataclasses import dataclass
from typing import Any

from profiler.progress import Event, Progress

PARTS = 200
"""Of a build; an event is told when another is done."""


@dataclass
class Phase:
    """A phase that is going on: how many of its steps are done, of how many, and in which phase it is one."""

    parent: str | None
    steps: int
    done: int = 0


class BuildProgress:
    """Turns phases into events; a fraction never goes back."""

    def __init__(self, stage: str, progress: Progress) -> None:
        self._stage, self._progress = stage, progress
        self._phases: dict[str, Phase] = {}
        self._told = 0

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """A phase begins."""
        self._phases[name] = Phase(parent, max(steps, 1))
        self._tell(name)

    def step(self, name: str, number: int) -> None:
        """A step of a phase, counted from 0, is done."""
        if name in self._phases:
            self._phases[name].done = number + 1
            self._tell(name)

    def finish(self, name: str) -> None:
        """A phase ends, with whatever it skipped."""
        phase = self._phases.pop(name, None)
        if phase is not None and phase.parent is None:
            self._told = PARTS
            self._progress(Event(self._stage, PARTS, PARTS))

    def _tell(self, name: str) -> None:
        share, here = 0.0, self._phases.get(name)
        while here is not None:
            share = min((here.done + share) / here.steps, 1.0)
            here = None if here.parent is None else self._phases.get(here.parent)
        parts = int(share * PARTS)
        if parts > self._told:
            self._told = parts
            self._progress(Event(self._stage, parts, PARTS, name))


def make_monitor(trt: Any, told: BuildProgress) -> Any:
    """Make the monitor that a builder's configuration takes; what uses it keeps it until the build ends."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            told.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            told.step(phase_name, step)
            return True

        def phase_finish(self, phase_name: str) -> None:
            told.finish(phase_name)

    return Monitor()
