"""Prove on a shrunk copy that a removal is right: it runs, and computes what the masked network does.

First a dry run, on PyTorch's meta device where only shapes are computed, which finds quickly what does not run; then a
real one on awake weights, on smaller pictures where the network takes them. What differs by more than a little in
single precision is looked at again in double.
"""

import contextlib
import copy
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from lut.records import ChannelGroup
from profiler.awake import awake_copy
from profiler.cut import Removal, copy_sharing, cut, zero
from profiler.groups import repeated
from profiler.outputs import relative_difference
from profiler.undisturbed import undisturbed

log = logging.getLogger(__name__)

EXACT = 1e-6
"""Largest relative difference, in double precision, between a shrunk and a masked network that counts as rounding."""

ROUNDING = 1e-5
"""The same in single precision; what is larger is computed again in double."""

MANY = 3_000_000
"""Networks with fewer parameters are tried three times, each time without other channels; of others more is removed,
which costs less time."""

SMALL_PICTURE = 64
"""Pictures larger than this are tried at about this size, where the network runs on it."""


def some_of(group: ChannelGroup, generator: np.random.Generator, fraction: float = 0.5) -> list[int]:
    """A random, uneven choice of about this fraction of a group's channels; never all of them."""
    spread = int(generator.integers(-1, 2)) if group.size > 4 else 0
    count = min(max(1, round(group.size * fraction) + spread), group.size - 1)
    return sorted(generator.choice(group.size, size=count, replace=False).tolist()) if count > 0 else []


def uneven_removal(
    groups: Sequence[ChannelGroup], seed: int, shares: tuple[float, float] = (0.25, 0.75)
) -> dict[str, list[int]]:
    """Some of all that can go, another share of each group, so that no two are equal by accident.

    With seed 0 the first and the last choice go: a number in the code that counts channels from either end shows.
    """
    generator = np.random.default_rng(seed)
    spread = np.linspace(*shares, max(2, len(groups)))
    generator.shuffle(spread)
    removal: dict[str, list[int]] = {}
    for group, share in zip(groups, spread.tolist(), strict=False):
        if group.size > 1:
            gone = set(some_of(group, generator, share))
            if seed == 0 and group.size > 2:
                inner = sorted(gone - {0, group.size - 1})[: max(0, len(gone) - 2)]
                gone = {0, group.size - 1, *inner}
            removal[group.name] = sorted(gone)
    return removal


def narrow_removal(groups: Sequence[ChannelGroup]) -> dict[str, list[int]]:
    """All but two choices of each group: code that tells tensors apart by their widths shows."""
    return {group.name: list(range(1, group.size - 1)) for group in groups if group.size > 2}


Failure = Callable[[Sequence[ChannelGroup]], str | None]
"""Removes a part of each of these groups; gives back why that is not right, or None."""


class Proof:
    """Copies of the network on which removals are tried: a dry one, and one that is awake.

    Attributes:
        blamed: the module that was running when the last copy failed, or None.
    """

    def __init__(self, model: nn.Module, inputs: Sequence[Any], training: bool) -> None:
        """Prepare the copies.

        Args:
            model: left as it was.
            inputs: positional arguments.
            training: whether shrunk copies must train where the network does, too.
        """
        self.original, self.given = model, tuple(inputs)
        self.model = awake_copy(model).eval()
        self.training = training
        self.full = _as(tuple(inputs), torch.float32)
        smaller = _smaller(self.full)
        self.small = smaller if smaller is not None and self._runs(self.model, smaller) else self.full
        few = sum(parameter.numel() for parameter in model.parameters()) < MANY
        self.tries = 3 if few else 1
        self.shares = (0.25, 0.75) if few else (0.6, 0.9)
        self.blamed: str | None = None
        self.known: dict[Any, tuple[str | None, str | None]] = {}
        self.more: dict[int, list[tuple[Any, ...]]] = {}

    @cached_property
    def dry(self) -> nn.Module:
        """The network without contents."""
        tensors = [*self.original.parameters(), *self.original.buffers()]
        return copy_sharing(self.original, tensors).to("meta").eval()

    @cached_property
    def dries(self) -> bool:
        """Whether it runs dry."""
        with torch.device("meta"):
            return self._runs(self.dry, to_meta(self.given))

    def inputs(self, groups: Sequence[ChannelGroup]) -> tuple[Any, ...]:
        """What a copy is run on: programs take the sizes that they were written for only."""
        return self.full if any(group.programs for group in groups) else self.small

    def many(self, inputs: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        """What a copy must train on: the inputs repeated once, if the network trains on them; else nothing."""
        if not self.training:
            return []
        if id(inputs) not in self.more:
            self.more[id(inputs)] = [many for many in repeated(inputs, 2) if self._trains(many)][:1]
        return self.more[id(inputs)]

    def _trains(self, many: tuple[Any, ...]) -> bool:
        try:
            self.train_once(self.model, many)
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
        """Run a copy in eval mode, with the same random numbers each time."""
        with torch.no_grad(), undisturbed(model), warnings.catch_warnings():
            torch.manual_seed(0)
            warnings.simplefilter("ignore")
            return model(*inputs)

    def train_once(self, model: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Run a copy in train mode, with gradients to come."""
        with torch.enable_grad(), undisturbed(model), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.train()
            model(*inputs)

    def dry_failure(self, groups: Sequence[ChannelGroup]) -> str | None:
        """Why the shapes of a shrunk copy do not fit, or None."""
        return self._remembered(groups, "dry", lambda: self._dry_failure(groups))

    def failure(self, groups: Sequence[ChannelGroup]) -> str | None:
        """Why a shrunk copy does not run or is not the masked network, or None."""
        return self._remembered(
            groups, "real", lambda: next(filter(None, (self._failure(groups, n) for n in range(self.tries))), None)
        )

    def _remembered(self, groups: Sequence[ChannelGroup], how: str, find: Callable[[], str | None]) -> str | None:
        """What was found of these groups before, or is found now; `blamed` with it."""
        cut_so = [(g.name, g.attributes, bool(g.approximate_because), *(p.module for p in g.programs)) for g in groups]
        key = (how, self.training, *cut_so)
        if key not in self.known:
            self.blamed = None
            reason = find()
            self.known[key] = (reason, self.blamed)
        reason, self.blamed = self.known[key]
        return reason

    def _dry_failure(self, groups: Sequence[ChannelGroup]) -> str | None:
        for remove in (uneven_removal(groups, 0), narrow_removal(groups)):
            smaller = cut(self.dry, groups, remove, share=True)
            try:
                with torch.device("meta"):
                    self.run(smaller, to_meta(self.given))
            except Exception as error:  # noqa: BLE001 - whatever the user's code raises means that it does not run
                return self._does_not_run(smaller, error)
        return None

    def _failure(self, groups: Sequence[ChannelGroup], seed: int) -> str | None:
        remove = uneven_removal(groups, seed, self.shares)
        soft = {group.name for group in groups if group.approximate_because}
        exact: Removal = {name: gone for name, gone in remove.items() if name not in soft}
        inputs = self.inputs(groups)
        many = self.many(inputs)
        smaller = cut(self.model, groups, remove, share=True)
        try:
            for each in many:
                self.train_once(smaller, each)
            if len(exact) < len(remove) and not many:
                self.run(smaller, inputs)
            smaller = cut(self.model, groups, exact, share=True)
            found = self.run(smaller, inputs)
            if seed == 0:
                smaller = cut(self.model, groups, narrow_removal(groups), share=True)
                self.run(smaller, inputs)
        except Exception as error:  # noqa: BLE001 - whatever the user's code raises means that it does not run
            return self._does_not_run(smaller, error)
        difference = relative_difference(found, self.run(zero(self.model, groups, exact, share=True), inputs))
        if difference > ROUNDING:
            precise = self._precisely(groups, exact, inputs)
            if precise is None:
                return None if difference <= 1e-3 else _differs(difference)
            difference = precise
            if difference > EXACT:
                return _differs(difference)
        return None

    def _precisely(self, groups: Sequence[ChannelGroup], exact: Removal, inputs: tuple[Any, ...]) -> float | None:
        """The difference in double precision; None where the network does not run in it."""
        precise, inputs = copy.deepcopy(self.model).double(), _as(inputs, torch.float64)
        with double_by_default():
            try:
                masked = self.run(zero(precise, groups, exact, share=True), inputs)
            except Exception as error:  # noqa: BLE001 - whatever the user's code raises means that it does not run
                log.info("the network does not run in double precision: %s", error)
                return None
            return relative_difference(self.run(cut(precise, groups, exact, share=True), inputs), masked)

    def _does_not_run(self, smaller: nn.Module, error: Exception) -> str:
        self.blamed = _running(smaller, error)
        first = str(error).splitlines()[0] if str(error) else ""
        return f"a shrunk copy does not run: {type(error).__name__}: {first}"


@contextlib.contextmanager
def double_by_default() -> Iterator[None]:
    """What the network's code makes of nothing is in double precision, too."""
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        yield
    finally:
        torch.set_default_dtype(before)


def _differs(difference: float) -> str:
    return f"a shrunk copy computes something else (relative difference {difference:.1g})"


def _running(model: nn.Module, error: Exception) -> str | None:
    """The innermost module of the model whose code the error passed through."""
    names = {id(module): name for name, module in model.named_modules()}
    found, trace = None, error.__traceback__
    while trace is not None:
        found = names.get(id(trace.tb_frame.f_locals.get("self")), found)
        trace = trace.tb_next
    return found


def _as(inputs: tuple[Any, ...], dtype: torch.dtype) -> tuple[Any, ...]:
    def convert(leaf: Any) -> Any:
        return leaf.to(dtype) if isinstance(leaf, Tensor) and leaf.dtype.is_floating_point else leaf

    return tuple(tree_map(convert, inputs))


def _smaller(inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """The inputs with large pictures cut to about `SMALL_PICTURE`, in steps of 32; None where there are none."""
    cut_any = False

    def convert(leaf: Any) -> Any:
        nonlocal cut_any
        if not isinstance(leaf, Tensor) or leaf.dim() not in (4, 5) or max(leaf.shape[-2:]) <= SMALL_PICTURE:
            return leaf
        cut_any = True
        factor = max(leaf.shape[-2:]) / SMALL_PICTURE
        height, width = (max(32, round(length / factor / 32) * 32) for length in leaf.shape[-2:])
        return leaf[..., :height, :width].contiguous()

    smaller = tuple(tree_map(convert, inputs))
    return smaller if cut_any else None


def to_meta(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """The inputs without contents."""
    return tuple(tree_map(lambda leaf: leaf.to("meta") if isinstance(leaf, Tensor) else leaf, inputs))
