"""The widths worth having for each group: on steps, and none that a wider one undercuts."""

from collections.abc import Mapping, Sequence
from functools import cached_property

from lut import LatencyTable, Predictor
from lut.records import Unit

MOST = 48
"""Widths offered for a group, about: the step is doubled until there are no more."""
FEWEST = 4
"""A group of fewer steps than this is divided in so many all the same."""


def width_options(size: int, step: int, min_width: int, most: int = MOST) -> tuple[int, ...]:
    """Multiples of the step, the least allowed, and the whole.

    Args:
        size: present width.
        step: found in the table; a group of fewer than four steps is divided in four.
        min_width: nothing below this.
        most: about how many options at most; the step is doubled until there are no more.
    """
    step = max(1, min(step, size // FEWEST))
    while size / step > most:
        step *= 2
    least = max(1, min(max(min_width, step), size))
    return tuple(sorted({least, size, *(w for w in range(step, size, step) if w >= least)}))


class Offered:
    """Says which widths each group is offered, by what the table shows of the device or by a step that is given."""

    def __init__(
        self,
        table: LatencyTable,
        units: Sequence[Unit],
        full: Mapping[str, int],
        predictor: Predictor | None,
        *,
        step: int | None = None,
        min_width: int = 1,
        most: int = MOST,
        blind_step: int = 1,
    ) -> None:
        """Take a table and the units and widths of the unpruned network.

        Args:
            table: in which steps are looked up.
            units: of the unpruned network.
            full: widths of the unpruned network.
            predictor: by which widths that a wider one undercuts are found.
            step: every multiple of this is offered, or None for the device's own steps.
            min_width: nothing below this.
            most: about how many widths of a group are offered, where no step is given.
            blind_step: the step where no latency shows one.
        """
        self._table, self._units, self._full = table, units, full
        self._predictor = predictor
        self._step, self._min_width, self._most = step, min_width, most
        self._blind_step = blind_step

    def options(self, group: str, widths: Mapping[str, int]) -> tuple[int, ...]:
        """The widths worth having for a group, ascending, at the present widths of all; the least and its own stay."""
        size = widths[group]
        if self._step is not None:
            return tuple(sorted({size, *(w for w in range(self._step, size, self._step) if w >= self._min_width)}))
        options = width_options(size, self.step(group), self._min_width, self._most)
        if self._predictor is None:
            return options
        return tuple(sorted({options[0], *self._predictor.worth_having(group, options, widths)}))

    def step(self, group: str) -> int:
        """The group's own step, but where it is wide enough at least the network's."""
        if self._predictor is None:
            return self._blind_step
        step = self._steps[group]
        return max(step, self._common) if self._full[group] >= FEWEST * self._common else step

    @cached_property
    def _steps(self) -> dict[str, int]:
        return {group: self._table.width_step(group, self._touching(group), self._full) for group in self._full}

    @cached_property
    def _common(self) -> int:
        """The step that most of the network's time keeps to: a device's blocks are the same for all layers.

        A family whose few or noisy points hide its step borrows it.
        """
        assert self._predictor is not None
        votes: dict[int, float] = {}
        for group, step in self._steps.items():
            cost = sum(self._predictor.unit_ms(unit.name, self._full) for unit in self._touching(group))
            votes[step] = votes.get(step, 0.0) + cost
        return max(votes, key=lambda step: votes[step], default=1)

    def _touching(self, group: str) -> list[Unit]:
        return [unit for unit in self._units if group in unit.groups]
