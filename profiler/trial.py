"""Try the found groups on a shrunk copy: what does not run there, or runs and is not the masked network, is frozen.

First a dry run, on PyTorch's meta device where only shapes are computed, which finds quickly what does not run; then a
real one in double precision on awake weights, on smaller pictures where the network takes them.
"""

import copy
import logging
import re
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from lut.records import ChannelGroup
from profiler.cut import Removal, awaken, copy_sharing, cut, relative_difference, zero
from profiler.groups import Structure, doubled, read_structure
from profiler.repair import with_attributes
from profiler.trace import undisturbed

log = logging.getLogger(__name__)

EXACT = 1e-6
"""Largest relative difference, in float64, between a shrunk and a masked network that counts as rounding."""

MANY = 3_000_000
"""Networks with fewer parameters are tried three times, each time without other channels."""

SMALL_PICTURE = 96
"""Pictures larger than this are tried at about this size, where the network runs on it."""


def some_of(group: ChannelGroup, generator: np.random.Generator, fraction: float = 0.5) -> list[int]:
    """A random, uneven choice of about this fraction of a group's channels; never all of them."""
    spread = int(generator.integers(-1, 2)) if group.size > 4 else 0
    count = min(max(1, round(group.size * fraction) + spread), group.size - 1)
    return sorted(generator.choice(group.size, size=count, replace=False).tolist()) if count > 0 else []


def uneven_removal(groups: Sequence[ChannelGroup], seed: int) -> dict[str, list[int]]:
    """About half of all that can go, another share of each group, so that no two are equal by accident.

    With seed 0 the first and the last choice go: a number in the code that counts channels from either end shows.
    """
    generator = np.random.default_rng(seed)
    shares = np.linspace(0.25, 0.75, max(2, len(groups)))
    generator.shuffle(shares)
    removal: dict[str, list[int]] = {}
    for group, share in zip(groups, shares.tolist(), strict=False):
        if group.size > 1:
            gone = set(some_of(group, generator, share))
            if seed == 0 and group.size > 2:
                inner = sorted(gone - {0, group.size - 1})[: max(0, len(gone) - 2)]
                gone = {0, group.size - 1, *inner}
            removal[group.name] = sorted(gone)
    return removal


Failure = Callable[[Sequence[ChannelGroup]], str | None]
"""Removes a part of each of these groups; gives back why that is not right, or None."""


class _Trial:
    """Copies of the network on which removals are tried: a dry one, and one in double precision that is awake."""

    def __init__(self, model: nn.Module, inputs: Sequence[Any], training: bool) -> None:
        self.training = training
        self.inputs, self.full = _as(tuple(inputs), torch.float64), tuple(inputs)
        self.exact = EXACT
        self.model = awaken(copy.deepcopy(model).double()).eval()
        if not self._runs(self.model, _smaller(self.inputs)):
            if not self._runs(self.model, self.inputs):
                self.model, self.inputs, self.exact = awaken(copy.deepcopy(model)).eval(), self.full, 1e-3
        else:
            self.inputs = _smaller(self.inputs)
        self.tries = 3 if sum(parameter.numel() for parameter in model.parameters()) < MANY else 1
        self.dry = _meta(model)
        self.dry_inputs = tuple(tree_map(_to_meta, self.full))
        with torch.device("meta"):
            self.dries = self._runs(self.dry, self.dry_inputs)
        if self.training:
            self.training = self._trains()

    def _trains(self) -> bool:
        try:
            self.train_once(self.model, self.inputs)
        except Exception as error:  # noqa: BLE001 - what does not train before need not train after
            log.info("the network does not run in train mode: %s", error)
            return False
        return True

    def _runs(self, model: nn.Module, inputs: tuple[Any, ...]) -> bool:
        try:
            self.run(model, inputs)
        except Exception as error:  # noqa: BLE001 - whatever the user's code raises means that it does not run
            log.debug("the network does not run in this form: %s", error)
            return False
        return True

    def run(self, model: nn.Module, inputs: tuple[Any, ...]) -> Any:
        with torch.no_grad(), undisturbed(model), warnings.catch_warnings():
            torch.manual_seed(0)
            warnings.simplefilter("ignore")
            return model(*inputs)

    def train_once(self, model: nn.Module, inputs: tuple[Any, ...]) -> None:
        with torch.no_grad(), undisturbed(model), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.train()
            model(*doubled(inputs))

    def dry_failure(self, groups: Sequence[ChannelGroup]) -> str | None:
        """Why the shapes of a shrunk copy do not fit, or None."""
        remove = uneven_removal(groups, 0)
        try:
            smaller = cut(self.dry, groups, remove, share=True)
            with torch.device("meta"):
                self.run(smaller, self.dry_inputs)
        except Exception as error:  # noqa: BLE001 - whatever the user's code raises means that it does not run
            return _does_not_run(error)
        return None

    def failure(self, groups: Sequence[ChannelGroup]) -> str | None:
        """Why a shrunk copy does not run or is not the masked network, or None."""
        return next(filter(None, (self._failure(groups, seed) for seed in range(self.tries))), None)

    def _failure(self, groups: Sequence[ChannelGroup], seed: int) -> str | None:
        remove = uneven_removal(groups, seed)
        soft = {group.name for group in groups if group.approximate_because}
        exact: Removal = {name: gone for name, gone in remove.items() if name not in soft}
        try:
            smaller = cut(self.model, groups, remove, share=True)
            found = self.run(smaller, self.inputs)
            if self.training:
                self.train_once(smaller, self.inputs)
            if len(exact) < len(remove):
                found = self.run(cut(self.model, groups, exact, share=True), self.inputs)
        except Exception as error:  # noqa: BLE001 - whatever the user's code raises means that it does not run
            return _does_not_run(error)
        masked = self.run(zero(self.model, groups, exact, share=True), self.inputs)
        difference = relative_difference(found, masked)
        if difference > self.exact:
            return f"a shrunk copy computes something else (relative difference {difference:.1g})"
        return None


def _does_not_run(error: Exception) -> str:
    first = str(error).splitlines()[0] if str(error) else ""
    return f"a shrunk copy does not run: {type(error).__name__}: {first}"


def _as(inputs: tuple[Any, ...], dtype: torch.dtype) -> tuple[Any, ...]:
    def convert(leaf: Any) -> Any:
        return leaf.to(dtype) if isinstance(leaf, Tensor) and leaf.dtype.is_floating_point else leaf

    return tuple(tree_map(convert, inputs))


def _smaller(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """The inputs with large pictures cut to about `SMALL_PICTURE`, in steps of 32."""

    def convert(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or leaf.dim() != 4 or max(leaf.shape[2:]) <= SMALL_PICTURE:
            return leaf
        factor = max(leaf.shape[2:]) / SMALL_PICTURE
        height, width = (max(32, round(length / factor / 32) * 32) for length in leaf.shape[2:])
        return leaf[:, :, :height, :width].contiguous()

    return tuple(tree_map(convert, inputs))


def _to_meta(leaf: Any) -> Any:
    return leaf.to("meta") if isinstance(leaf, Tensor) else leaf


def _meta(model: nn.Module) -> nn.Module:
    """The network without contents: shapes only."""
    dry = copy_sharing(model, [*model.parameters(), *model.buffers()])
    return dry.to("meta").eval()


def _culprits(fails: Failure, groups: Sequence[ChannelGroup], reason: str) -> dict[str, str]:
    """Halve until the groups that fail stand alone; those that fail only together are all named."""
    if len(groups) == 1:
        return {groups[0].name: reason}
    middle = len(groups) // 2
    found: dict[str, str] = {}
    for half in (groups[:middle], groups[middle:]):
        failure = fails(half)
        if failure:
            found.update(_culprits(fails, half, failure))
    return found or {group.name: reason for group in groups}


def _frozen(group: ChannelGroup, reason: str) -> ChannelGroup:
    return replace(group, size=0, frozen_because=reason, attributes=())


def _alike(groups: Sequence[ChannelGroup]) -> list[list[ChannelGroup]]:
    """The groups by kind: those whose parameters have the same names but for the numbers in them."""
    kinds: dict[tuple[tuple[str, int], ...], list[ChannelGroup]] = defaultdict(list)
    for group in groups:
        kinds[tuple((re.sub(r"\d+", "#", m.parameter), m.dimension) for m in group.members)].append(group)
    return list(kinds.values())


def _judged(fails: Failure, kind: list[ChannelGroup]) -> list[ChannelGroup]:
    """Groups of one kind as they can stay: as they are, without guessed numbers, or frozen.

    Where the first and the last of a kind fail alone, the whole kind is frozen.
    """
    failure = fails(kind)
    if failure is not None and any(group.attributes for group in kind):
        kind = [replace(group, attributes=()) for group in kind]
        failure = fails(kind)
    if failure is None:
        return kind
    alone = [fails([group]) for group in (kind[0], kind[-1])] if len(kind) > 1 else [failure]
    if all(alone):
        return [_frozen(group, str(alone[0])) for group in kind]
    wrong = _culprits(fails, kind, failure)
    return [_frozen(group, wrong[group.name]) if group.name in wrong else group for group in kind]


def _sift(fails: Failure, groups: tuple[ChannelGroup, ...]) -> tuple[ChannelGroup, ...]:
    """Drop guessed numbers, and freeze groups, until what is left passes together."""
    while True:
        prunable = [group for group in groups if not group.frozen_because]
        failure = fails(prunable) if prunable else None
        if failure is None:
            return groups
        judged = [group for kind in _alike(prunable) for group in _judged(fails, kind)]
        if all(group in prunable for group in judged):
            wrong = _culprits(fails, prunable, failure)
            judged = [_frozen(group, wrong[group.name]) for group in prunable if group.name in wrong]
        by_name = {group.name: group for group in judged}
        groups = tuple(by_name.get(group.name, group) for group in groups)


def settle(model: nn.Module, inputs: Sequence[Any], structure: Structure) -> Structure:
    """Freeze every group whose removal fails on a shrunk copy; the rest is proved to run together."""
    if all(group.frozen_because for group in structure.groups):
        return structure
    groups = with_attributes(model, structure)
    trial = _Trial(model, inputs, bool(structure.trace.unseen))
    if trial.dries:
        groups = _sift(trial.dry_failure, groups)
    return replace(structure, groups=_sift(trial.failure, groups))


def analyze_structure(model: nn.Module, inputs: Sequence[Any], freeze: Sequence[str] = ()) -> Structure:
    """Trace a network, find its groups and prove on a shrunk copy that what is prunable runs."""
    return settle(model, inputs, read_structure(model, inputs, freeze))


def find_groups(model: nn.Module, inputs: Sequence[Any], freeze: Sequence[str] = ()) -> list[ChannelGroup]:
    """Find which channels of a network hang together, and which can be removed.

    Args:
        model: any module; it is left as it was.
        inputs: positional arguments of `forward`, nested lists and dicts of tensors allowed.
        freeze: patterns of layer names (`fnmatch`) that are to stay whole.

    Returns:
        Prunable and frozen groups, in the order of their first layer; what is prunable has been removed once from a
        copy, which ran and gave the masked network's output.

    Raises:
        LatpruneError: the network does not run on the inputs, or a pattern names nothing.
    """
    return list(analyze_structure(model, inputs, freeze).groups)
