"""What others would remove, as channels kept for a strength between 0 (nothing goes) and 1 (one channel a group stays).

Only the order of removals is theirs. How strongly a network is pruned is found by measuring, for all alike.
"""

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from profiler.network import Network

Kept = dict[str, tuple[int, ...]]
"""For each prunable group the choices that stay, ascending."""
LEAST_STEPS = 4
"""So many widths a group has at least where widths are rounded up."""
Scores = Mapping[str, NDArray[np.float64]]
"""For each prunable group the score of each choice."""
Priced = Callable[[Mapping[str, int], str], float]
"""What one channel of a group costs at the present widths."""


class Peer(Protocol):
    """A way to prune that has one dial."""

    def kept(self, strength: float) -> Kept:
        """What is left at a strength in 0 … 1; never less of a group where the strength is smaller."""
        ...


def best_of(scores: Scores, widths: Mapping[str, int]) -> Kept:
    """The highest scores of each group, so many as its width."""
    found = {}
    for group, own in scores.items():
        best = np.argsort(-own, kind="stable")[: widths[group]]
        found[group] = tuple(sorted(int(choice) for choice in best))
    return found


@dataclass(frozen=True)
class Uniform:
    """Every group keeps the same share of its channels, those of the highest scores."""

    scores: Scores

    def kept(self, strength: float) -> Kept:
        """What is left."""
        return best_of(self.scores, {group: share_of(len(own), strength) for group, own in self.scores.items()})


def share_of(size: int, strength: float) -> int:
    """How many channels of a group stay when every group loses the same share; at least one."""
    return max(1, round((1 - strength) * size))


class ByOne:
    """Group Fisher Pruning's rule at fixed scores: one channel at a time, of least score over what it costs now.

    The method as published takes scores afresh while training goes on between removals; here all methods have the same
    scores and the same fine-tuning, and only the rule is compared.

    Source: Liu et al., Group Fisher Pruning for Practical Network Compression, ICML 2021, arXiv:2108.00708.
    """

    def __init__(
        self, scores: Scores, priced: Priced, neighbours: Mapping[str, set[str]], steps: Mapping[str, int] | None = None
    ) -> None:
        """Put all channels in the order in which they go.

        Args:
            scores: by group.
            priced: what a channel costs.
            neighbours: for each group those whose channels are priced anew once its width has changed.
            steps: widths are rounded up to multiples of these, or None to leave them as they are.
        """
        self.scores, self.steps = scores, steps
        self.order = removal_order(scores, priced, neighbours)

    def widths(self, strength: float) -> dict[str, int]:
        """Channels kept by group."""
        widths = {group: len(own) for group, own in self.scores.items()}
        for group in self.order[: round(strength * len(self.order))]:
            widths[group] -= 1
        if self.steps is None:
            return widths
        return {g: min(len(self.scores[g]), rounded_up(width, self.steps[g])) for g, width in widths.items()}

    def kept(self, strength: float) -> Kept:
        """What is left."""
        return best_of(self.scores, self.widths(strength))


def rounded_up(width: int, step: int) -> int:
    """The next multiple of the step."""
    return -(-width // step) * step


def removal_order(scores: Scores, priced: Priced, neighbours: Mapping[str, set[str]]) -> list[str]:
    """The groups that lose a channel, one after another, until each has one left."""
    ascending = {group: np.sort(own) for group, own in scores.items()}
    widths = {group: len(own) for group, own in scores.items()}
    version = dict.fromkeys(widths, 0)
    queue: list[tuple[float, str, int]] = []

    def push(group: str) -> None:
        version[group] += 1
        if widths[group] > 1:
            score = float(ascending[group][len(ascending[group]) - widths[group]])
            heapq.heappush(queue, (score / max(priced(widths, group), 1e-12), group, version[group]))

    for group in widths:
        push(group)
    order = []
    while queue:
        _, group, known = heapq.heappop(queue)
        if known != version[group]:
            continue
        order.append(group)
        widths[group] -= 1
        for other in {group, *neighbours.get(group, ())}:
            push(other)
    return order


class Memory:
    """Bytes that one channel of a group fills in the outputs of convolutions and linear layers: the seed's count."""

    def __init__(self, network: Network) -> None:
        """Read the tensors that layers pass on, whenever they live."""
        self._tensors: dict[str, list[tuple[int, Callable[[Mapping[str, int]], int]]]] = {}
        for tensor in network.cut.liveness.activations:
            if not network.units[tensor.first].macs_each:
                continue
            for group in dict.fromkeys(g for coordinate in tensor.coordinates for g, _ in coordinate.terms):
                self._tensors.setdefault(group, []).append((tensor.bytes_each, tensor.at))

    def __call__(self, widths: Mapping[str, int], group: str) -> float:
        """Bytes saved by the group's next channel."""
        fewer = {**widths, group: widths[group] - 1}
        return float(sum(at(widths) - at(fewer) for _, at in self._tensors.get(group, ())))


class Flops:
    """Multiply-adds of all units on a group, on both sides of each."""

    def __init__(self, network: Network) -> None:
        """Read which units each group touches."""
        self._units = {
            group: [unit for unit in network.units if group in unit.groups and unit.macs_each]
            for group in network.widths
        }

    def __call__(self, widths: Mapping[str, int], group: str) -> float:
        """Multiply-adds saved by the group's next channel."""
        fewer = {**widths, group: widths[group] - 1}
        return sum(unit.macs(widths) - unit.macs(fewer) for unit in self._units[group])


def unpriced(_widths: Mapping[str, int], _group: str) -> float:
    """Raw importance is divided by nothing."""
    return 1.0


def neighbours_of(network: Network) -> dict[str, set[str]]:
    """For each group those that share a unit with it."""
    found: dict[str, set[str]] = {group: set() for group in network.widths}
    for unit in network.units:
        for group in unit.groups:
            found[group].update(other for other in unit.groups if other != group)
    return found


def steps_of(network: Network, width_step: Callable[..., int]) -> dict[str, int]:
    """The device's step in each group's width, as the table shows it.

    A group of fewer than four steps is divided in four, as for our own widths: on steps of 16 a group of 16
    channels could not be pruned at all.

    Args:
        network: the unpruned one.
        width_step: of the table.
    """
    return {
        group: max(1, min(width_step(group, network.units, network.widths), size // LEAST_STEPS))
        for group, size in network.widths.items()
    }
