"""Find how strongly a peer has to prune until the exported network, as measured, is within a budget and uses it."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.versus_peers import Kept, Peer
from lut.records import MeasureConfig
from profiler.export import write_onnx
from profiler.variants import Variants
from profiler.worker_client import WorkerClient
from pruner.loop import WITHIN

STRONG = 0.9
"""Where this strength is too little, full strength is tried next: perhaps nothing is enough."""
FINEST = 1 / 500
"""Strengths closer to each other are not told apart."""
CAREFULLY = MeasureConfig(warmup_s=0.1, min_time_s=0.5, max_time_s=4.0, min_samples=40, noise_target=0.006)
ROUGHLY = MeasureConfig(warmup_s=0.01, min_time_s=0.01, max_time_s=0.05, min_samples=4, max_samples=16)
"""For a trial of the sweep itself."""


class UnreachableError(Exception):
    """No strength brings the network within the budget."""


@dataclass(frozen=True)
class Found:
    """What a search ends with.

    Attributes:
        kept: channels by group.
        strength: of the peer.
        ratio: latency over the unpruned network's, as measured by turns.
        noise: of the ratio.
        trials: strength and ratio of all that was measured, in order.
    """

    kept: Kept
    strength: float
    ratio: float
    noise: float
    trials: tuple[tuple[float, float], ...]


class Bench:
    """Times a network's variants by turns with the unpruned one; a context manager."""

    def __init__(self, variants: Variants, client: WorkerClient, config: MeasureConfig = CAREFULLY) -> None:
        """Write the unpruned network."""
        self.variants, self.client, self.config = variants, client, config
        self._folder = tempfile.TemporaryDirectory(prefix="latprune-")
        self._unpruned = Path(self._folder.name) / "unpruned.onnx"
        write_onnx(variants.at({}), self._unpruned)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._folder.cleanup()

    def ratio(self, kept: Mapping[str, tuple[int, ...]]) -> tuple[float, float]:
        """Latency over the unpruned network's, and its noise.

        Raises:
            RuntimeError: it cannot be measured.
        """
        path = Path(self._folder.name) / "pruned.onnx"
        widths = {
            name: len(kept[name]) if name in kept else size for name, size in self.variants.network.widths.items()
        }
        write_onnx(self.variants.at(self.variants.widths_removal(widths)), path)
        reply = self.client.time(path, self.config, reference=self._unpruned)
        if reply.failure is not None or reply.ratio is None:
            raise RuntimeError(f"a network cannot be measured: {reply.failure or 'too few samples were undisturbed'}")
        return reply.ratio, reply.ratio_noise or 0.0


def search(peer: Peer, measure: Callable[[Kept], tuple[float, float]], budget: float) -> Found:
    """The least strength found whose measured latency is within the aim; bisection, as latency has steps and bumps.

    Args:
        peer: says what is kept at a strength.
        measure: ratio and its noise, at what is kept.
        budget: as a fraction of the unpruned network's latency; the same share of it is aimed at as by our loop.

    Raises:
        UnreachableError: not even full strength is within it; says what it reaches.
    """
    least, aim = (share * budget for share in WITHIN)
    trials: list[Found] = []

    def attempt(strength: float) -> Found:
        kept = peer.kept(strength)
        same = next((trial for trial in trials if trial.kept == kept), None)
        ratio, noise = (same.ratio, same.noise) if same else measure(kept)
        trials.append(Found(kept, strength, ratio, noise, ()))
        return trials[-1]

    low, high, strength = 0.0, 1.0, 1 - aim
    while high - low > FINEST:
        now = attempt(strength)
        if least <= now.ratio <= aim:
            break
        if now.ratio <= aim:
            high = strength
        elif strength == 1.0:
            break
        else:
            low = strength
        strength = 1.0 if high == 1.0 and low > STRONG else (low + high) / 2
    return _best(trials, aim)


def _best(trials: list[Found], aim: float) -> Found:
    within = [trial for trial in trials if trial.ratio <= aim]
    if not within:
        least = min(trials, key=lambda trial: trial.ratio)
        raise UnreachableError(
            f"not within the budget: the least of {len(trials)} measured is {least.ratio:.1%} of the unpruned latency, "
            f"and {aim:.1%} is aimed at"
        )
    best = min(within, key=lambda trial: (trial.strength, trial.ratio))
    told = tuple((trial.strength, trial.ratio) for trial in trials)
    return Found(best.kept, best.strength, best.ratio, best.noise, told)
