"""Try the found groups on a shrunk copy: what does not run there, or runs and is not the masked network, is frozen."""

import copy
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from lut.records import ChannelGroup
from profiler.cut import awaken, cut, relative_difference, zero
from profiler.groups import Structure, read_structure
from profiler.trace import undisturbed

log = logging.getLogger(__name__)

EXACT = 1e-6
"""Largest relative difference, in float64, between a shrunk and a masked network that counts as rounding."""


def some_of(group: ChannelGroup, generator: np.random.Generator, fraction: float = 0.5) -> list[int]:
    """A random, uneven choice of about this fraction of a group's channels; never all of them."""
    spread = int(generator.integers(-1, 2)) if group.size > 4 else 0
    count = min(max(1, round(group.size * fraction) + spread), group.size - 1)
    return sorted(generator.choice(group.size, size=count, replace=False).tolist()) if count > 0 else []


class _Trial:
    """A double-precision, awake copy of the network on which removals are tried."""

    def __init__(self, model: nn.Module, inputs: Sequence[Any], training: bool) -> None:
        self.model = awaken(copy.deepcopy(model)).eval()
        self.inputs = tuple(inputs)
        self.training = training
        self.exact = EXACT
        try:
            double = copy.deepcopy(self.model).double()
            with torch.no_grad(), undisturbed(double):
                double(*_as(self.inputs, torch.float64))
        except (RuntimeError, TypeError, ValueError):
            self.exact = 1e-3
        else:
            self.model, self.inputs = double, _as(self.inputs, torch.float64)

    def run(self, model: nn.Module) -> Any:
        torch.manual_seed(0)
        with torch.no_grad(), undisturbed(model):
            return model(*self.inputs)

    def failure(self, groups: Sequence[ChannelGroup]) -> str | None:
        """Remove half of these groups; why that is not right, or None."""
        generator = np.random.default_rng(0)
        remove = {group.name: some_of(group, generator) for group in groups if group.size > 1}
        try:
            smaller = cut(self.model, groups, remove)
            found = self.run(smaller)
            if self.training:
                smaller.train()
                _train_once(smaller, self.inputs)
        except Exception as error:  # noqa: BLE001 - whatever the user's code raises means that it does not run
            return f"a shrunk copy does not run: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        exact = {group.name: remove[group.name] for group in groups if group.name in remove and not group.approximate_because}
        if len(exact) < len(remove):
            found = self.run(cut(self.model, groups, exact))
        difference = relative_difference(found, self.run(zero(self.model, groups, exact)))
        if difference > self.exact:
            return f"a shrunk copy computes something else (relative difference {difference:.1g})"
        return None


def _as(inputs: tuple[Any, ...], dtype: torch.dtype) -> tuple[Any, ...]:
    def convert(leaf: Any) -> Any:
        return leaf.to(dtype) if isinstance(leaf, Tensor) and leaf.dtype.is_floating_point else leaf

    return tuple(tree_map(convert, inputs))


def _train_once(model: nn.Module, inputs: tuple[Any, ...]) -> None:
    def twice(leaf: Any) -> Any:
        return torch.cat([leaf, leaf]) if isinstance(leaf, Tensor) and leaf.dim() else leaf

    with torch.no_grad(), undisturbed(model):
        model(*tree_map(twice, inputs))


def _culprits(trial: _Trial, groups: Sequence[ChannelGroup], reason: str) -> dict[str, str]:
    """Halve until the groups that fail stand alone; those that fail only together are all named."""
    if len(groups) == 1:
        return {groups[0].name: reason}
    middle = len(groups) // 2
    found: dict[str, str] = {}
    for half in (groups[:middle], groups[middle:]):
        failure = trial.failure(half)
        if failure:
            found.update(_culprits(trial, half, failure))
    return found or {group.name: reason for group in groups}


def settle(model: nn.Module, inputs: Sequence[Any], structure: Structure) -> Structure:
    """Freeze every group whose removal fails on a shrunk copy; the rest is proved to run together."""
    groups = list(structure.groups)
    training = bool(structure.trace.unseen)
    trial = _Trial(model, inputs, training)
    if training:
        try:
            _train_once(trial.model, trial.inputs)
        except Exception as error:  # noqa: BLE001 - what does not train before need not train after
            log.info("the network does not run in train mode: %s", error)
            trial.training = False
    while True:
        prunable = [group for group in groups if not group.frozen_because]
        failure = trial.failure(prunable) if prunable else None
        if failure is None:
            break
        wrong = _culprits(trial, prunable, failure)
        groups = [
            replace(group, size=0, frozen_because=wrong[group.name]) if group.name in wrong else group for group in groups
        ]
    return replace(structure, groups=tuple(groups))


def analyze_structure(
    model: nn.Module, inputs: Sequence[Any], freeze: Sequence[str] = (), *, fingerprints: bool = False
) -> Structure:
    """Trace a network, find its groups and prove on a shrunk copy that what is prunable runs."""
    return settle(model, inputs, read_structure(model, inputs, freeze, fingerprints=fingerprints))


def find_groups(model: nn.Module, inputs: Sequence[Any], freeze: Sequence[str] = ()) -> list[ChannelGroup]:
    """Find which channels of a network hang together, and which can be removed.

    Args:
        model: any module; it is left as it was.
        inputs: positional arguments of `forward`, nested lists and dicts of tensors allowed.
        freeze: patterns of layer names (`fnmatch`) that are to stay whole.

    Returns:
        Prunable and frozen groups, in the order of their first layer; what is prunable has been removed once from a copy,
        which ran and gave the masked network's output.

    Raises:
        LatpruneError: the network does not run on the inputs, or a pattern names nothing.
    """
    return list(analyze_structure(model, inputs, freeze).groups)
