"""Which widths to measure next: where the table knows least, spread over what pruning could leave."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from lut import Predictor

STEPS = (16, 1, 8, 16)
"""Widths are drawn in steps of these by turns: plans keep to steps, and only free widths show where the steps are."""
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
        candidates = [self._candidate(level, step) for _ in range(CANDIDATES)]
        if predictor is None:
            return candidates[0]
        return candidates[int(np.argmax(predictor.uncertainties(candidates)))]

    def _candidate(self, level: float, step: int) -> dict[str, int]:
        widths = {}
        for name, size in self.full.items():
            share = float(np.clip(level + self._generator.normal(0, DEVIATION), 0.05, 1.0))
            kept = max(1, round(share * size))
            if size >= 4 * step:
                kept = max(step, round(kept / step) * step)
            widths[name] = min(kept, size)
        return widths
