"""Which widths to measure next: where the table knows least, spread over what pruning could leave."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from lut import Predictor

FOUND = 0
"""Stands for the step that the table has found for the group."""
STEPS = (16, 1, 8, FOUND)
"""Widths are drawn in steps of these by turns: plans keep to steps, and only free widths show where the steps are."""
OVER_AN_EDGE = 0.25
"""Share of the groups that stand one channel over an edge where steps are found ones: there the next block begins."""
CANDIDATES = 12
"""Drawn at each turn; the one whose prediction is least certain is measured."""
LEAST_KEPT = 0.15
DEVIATION = 0.2
"""Standard deviation of a group's share around the network's."""


@dataclass
class Sampler:
    """Draws widths without end: the unpruned network, then random ones, the least certain of several."""

    full: Mapping[str, int]
    seed: int = 0
    drawn: int = 0
    _generator: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        """Start the generator."""
        self._generator = np.random.default_rng(self.seed)

    def draw(self, predictor: Predictor | None = None) -> dict[str, int]:
        """Draw the next widths; without a predictor the first that come.

        Each turn draws how much is kept on the whole, so that small and large networks come alike; the candidates
        deviate from it group by group.
        """
        number, self.drawn = self.drawn, self.drawn + 1
        if number == 0 or not self.full:
            return dict(self.full)
        step = STEPS[(number - 1) % len(STEPS)]
        level = self._generator.uniform(LEAST_KEPT, 1.0)
        steps = {name: step or self._found(name, predictor) for name in self.full}
        candidates = [self._candidate(level, steps, OVER_AN_EDGE if step == FOUND else 0.0) for _ in range(CANDIDATES)]
        if predictor is None:
            return candidates[0]
        return candidates[int(np.argmax(predictor.uncertainties(candidates)))]

    def _found(self, group: str, predictor: Predictor | None) -> int:
        """The step in a group's width that the table shows; 16 where it shows none yet."""
        step = 1 if predictor is None else predictor.table.width_step(group, predictor.units)
        return step if step > 1 else STEPS[0]

    def _candidate(self, level: float, steps: Mapping[str, int], over: float) -> dict[str, int]:
        widths = {}
        for name, size in self.full.items():
            step = steps[name]
            share = float(np.clip(level + self._generator.normal(0, DEVIATION), 0.05, 1.0))
            kept = max(1, round(share * size))
            if size >= 4 * step:
                kept = max(step, round(kept / step) * step)
                kept += int(self._generator.random() < over)
            widths[name] = min(kept, size)
        return widths
