"""Cut channels out of a copy of a network, or zero them in it: the two sides of the proof that a removal is exact."""

import copy
import re
from collections import OrderedDict, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lut.errors import LatpruneError
from lut.program import Program
from lut.records import ChannelGroup
from profiler.branches import Block, Written, masked, without
from profiler.dropping import drop_tensors, owners_of
from profiler.narrowing import narrow_program, outermost
from profiler.program_module import install

Removal = Mapping[str, Collection[int]]
"""For each group's name the choices that go."""

Lost = Mapping[str, Mapping[int, Sequence[int]]]
"""For each parameter's or buffer's name and dimension the positions that go.

A number in a module (`SizeAttribute`) stands among them by its name, with its place in a tuple (or -1) as the dimension
and as many positions as it loses.
"""

TINY = 1e-12
"""Stands for zero where a weight is divided by its own length."""

SIZE_NAMES = re.compile(r"channel|feature|dim|size|width|planes|shape|num_parameters", re.IGNORECASE)
"""Names of module attributes that may repeat a parameter's size."""


def lost_positions(groups: Iterable[ChannelGroup], remove: Removal) -> dict[str, dict[int, list[int]]]:
    """For each parameter and dimension the positions that go.

    Raises:
        ValueError: an unknown or frozen group, a choice that does not exist, or a group that would lose all it has.
    """
    by_name = {group.name: group for group in groups}
    lost: dict[str, dict[int, list[NDArray[np.int64]]]] = defaultdict(lambda: defaultdict(list))
    for name, choices in remove.items():
        if name not in by_name:
            raise ValueError(f"there is no group {name!r}; the network has {len(by_name)} groups")
        group = by_name[name]
        if not choices:
            continue
        if group.frozen_because:
            raise ValueError(f"group {name!r} is frozen: {group.frozen_because}")
        wrong = [choice for choice in choices if not 0 <= choice < group.size]
        if wrong:
            raise ValueError(f"group {name!r} has choices 0 to {group.size - 1}, not {wrong[0]}")
        if len(set(choices)) >= group.size:
            raise ValueError(f"group {name!r} would lose all of its {group.size} channels")
        for member in group.members:
            lost[member.parameter][member.dimension].append(member.table[list(choices)].reshape(-1))
        for number in group.attributes:
            counted = lost[f"{number.module}.{number.attribute}".lstrip(".")][number.item]
            start = sum(map(len, counted))
            counted.append(np.arange(start, start + number.each * len(set(choices))))
    return {name: {d: np.unique(np.concatenate(at)).tolist() for d, at in dims.items()} for name, dims in lost.items()}


@dataclass(frozen=True)
class _Change:
    """What one parameter or buffer of a module lost: its name there, its old and new shape, and the positions."""

    leaf: str
    old: tuple[int, ...]
    new: tuple[int, ...]
    lost: Mapping[int, Sequence[int]]


def copy_sharing(model: nn.Module, shared: Iterable[Tensor]) -> nn.Module:
    """A copy of the network in which these tensors are the original's own."""
    memo: dict[int, Any] = {id(tensor): tensor for tensor in shared}
    for module in model.modules():  # a module has a dozen empty dictionaries, which take half of the time to copy
        memo.update((id(v), type(v)()) for v in vars(module).values() if type(v) in (dict, OrderedDict) and not v)
    return copy.deepcopy(model, memo)


def cut(
    model: nn.Module,
    groups: Iterable[ChannelGroup],
    remove: Removal,
    *,
    blocks: Sequence[Block] = (),
    share: bool = False,
) -> nn.Module:
    """Give back a copy of the network that is really smaller; the original is untouched.

    Modules whose code holds numbers that cannot follow, and those around a block that goes, are run as programs in the
    copy.

    With `share` the copy keeps the original's own tensors where they lose nothing: for looking, not for training.
    """
    groups = list(groups)
    smaller = cut_positions(model, lost_positions(groups, remove), share=share)
    smaller = install(smaller, programs_after(groups, remove, blocks))
    return drop_tensors(smaller, {name for block in blocks for name in block.parameters})


def programs_after(groups: Iterable[ChannelGroup], remove: Removal, blocks: Sequence[Block] = ()) -> list[Program]:
    """The programs that a network holds after a removal of channels and blocks, at its widths.

    A network that loses anything has all of its groups' programs, one that loses nothing has none: so its form does not
    hang on which widths are chosen, and what was measured at some is what is deployed at others.
    """
    any_gone = bool(blocks) or any(remove.values())
    needed = {program.module: program for group in groups if any_gone for program in group.programs}
    return [narrow_program(without(*found), remove) for found in _around(needed, blocks)]


def _around(needed: Mapping[str, Program], blocks: Sequence[Block]) -> list[tuple[Program, list[Written]]]:
    """The outermost programs of those needed and those around blocks, each with the blocks in it."""
    found = []
    for program in outermost([*needed.values(), *(block.home.program for block in blocks)]):
        inside = [block.written[program.module] for block in blocks if program.module in block.written]
        found.append((inside[0].program if inside else program, inside))
    return found


def number_in(model: nn.Module, name: str) -> Any:
    """The integer, or tuple of integers, that stands under this name in one of the model's modules; else None."""
    path, _, attribute = name.rpartition(".")
    module = dict(model.named_modules(remove_duplicate=False)).get(path)
    value = vars(module).get(attribute) if module is not None else None
    return value if type(value) is int or isinstance(value, tuple | list) else None


def _lower(model: nn.Module, name: str, lost: Mapping[int, Sequence[int]], old: Any) -> None:
    """Let a number in a module follow what is lost (in the copy; `old` is the original's)."""
    path, _, attribute = name.rpartition(".")
    module = model.get_submodule(path)
    for place, gone in lost.items():
        if place < 0:
            setattr(module, attribute, old - len(gone))
        else:
            now = list(getattr(module, attribute))
            now[place] = old[place] - len(gone)
            setattr(module, attribute, type(old)(now))


def cut_positions(model: nn.Module, lost: Lost, *, share: bool = False) -> nn.Module:
    """Give back a copy of the network without these positions of its parameters; the original is untouched.

    Attributes of the modules that repeat a parameter's size (`out_channels`, `normalized_shape`, `groups` …) follow.

    Raises:
        LatpruneError: the network has no such parameter.
    """
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    smaller = copy_sharing(model, tensors.values() if share else [tensors[name] for name in lost if name in tensors])
    owners = owners_of(smaller)
    resized: dict[nn.Module, list[_Change]] = defaultdict(list)
    numbers = {name: number_in(model, name) for name in lost if name not in owners}
    for name, dims in lost.items():
        if numbers.get(name) is not None:
            continue
        if name not in owners:
            raise LatpruneError(f"The network has no parameter {name!r}: its groups belong to another network.")
        old = tensors[name]
        trainable = isinstance(old, nn.Parameter)
        new = _without(old, dims)
        replacement = nn.Parameter(new, requires_grad=old.requires_grad) if trainable else new
        for module, leaf, path in owners[name]:
            table: dict[str, Any] = module._parameters if trainable else module._buffers
            table[leaf] = replacement
            change = _Change(leaf, tuple(old.shape), tuple(new.shape), dims)
            resized[smaller.get_submodule(path.partition("parametrizations.")[0].rstrip("."))].append(change)
    for module, changes in resized.items():
        _follow(module, changes)
    for name, old in numbers.items():
        _lower(smaller, name, lost[name], old)
    return smaller


def _without(tensor: Tensor, lost: Mapping[int, Sequence[int]]) -> Tensor:
    new = tensor.detach()
    for dimension, gone in lost.items():
        kept = torch.ones(tensor.shape[dimension], dtype=torch.bool)
        kept[list(gone)] = False
        new = new.index_select(dimension, kept.nonzero().flatten().to(tensor.device))
    return new if new is not tensor and lost else new.clone()


def _follow(module: nn.Module, changes: Sequence[_Change]) -> None:
    """Let the module's own numbers follow its parameters' new sizes."""
    if isinstance(module, nn.modules.conv._ConvNd):
        _follow_convolution(module, changes)
        return
    sizes: dict[int, int] = {}
    for change in changes:
        sizes.update({old: new for old, new in zip(change.old, change.new, strict=True) if old != new})
    if isinstance(module, nn.GroupNorm) and module.num_groups > 1:
        module.num_groups = module.num_groups * sizes[module.num_channels] // module.num_channels
    for name, value in list(vars(module).items()):
        if name.startswith("_") or not SIZE_NAMES.search(name):
            continue
        if type(value) is int and value in sizes:
            setattr(module, name, sizes[value])
        elif isinstance(value, tuple) and value and all(type(item) is int for item in value):
            setattr(module, name, tuple(sizes.get(item, item) for item in value))


def _follow_convolution(module: nn.modules.conv._ConvNd, changes: Sequence[_Change]) -> None:
    """Channels follow the weight's two first dimensions; a group convolution's parts that are gone leave `groups`."""
    weights = [change for change in changes if change.leaf != "bias"]
    rows = {position for change in weights for position in change.lost.get(0, ())}
    places = {position for change in weights for position in change.lost.get(1, ())}
    first, second = module.out_channels, module.in_channels
    if module.transposed:
        first, second = second, first
    inner, part = second // module.groups - len(places), first // module.groups
    gone = sum(rows.issuperset(range(start, start + part)) for start in range(0, first, part))
    module.groups = module.groups - gone if module.groups > 1 else 1
    sizes = (first - len(rows), inner * module.groups)
    module.in_channels, module.out_channels = sizes if module.transposed else sizes[::-1]


def zero(
    model: nn.Module,
    groups: Iterable[ChannelGroup],
    remove: Removal,
    *,
    blocks: Sequence[Block] = (),
    share: bool = False,
) -> nn.Module:
    """Give back a copy of the same size in which all elements that `cut` would remove, and blocks' branches, are zero.

    Where blocks are masked the modules around them are run as programs, for a branch need not end in a parameter.
    """
    same = zero_positions(model, lost_positions(groups, remove), share=share)
    return install(same, [masked(*found) for found in _around({}, blocks)])


def zero_positions(model: nn.Module, lost: Lost, *, share: bool = False) -> nn.Module:
    """Give back a copy of the same size in which these positions of the parameters are zero.

    Buffers that are met element by element (means, deviations) keep their values, and weights that are divided by their
    own length become tiny instead: a division by zero proves nothing.
    """
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    masked = copy_sharing(model, [tensor for name, tensor in tensors.items() if name not in lost] if share else [])
    buffers = {name: buffer for name, buffer in masked.named_buffers() if max(buffer.shape, default=1) < buffer.numel()}
    named: dict[str, Tensor] = dict(masked.named_parameters()) | buffers
    with torch.no_grad():
        for name, dims in lost.items():
            for dimension, gone in dims.items() if name in named else ():
                value = TINY if ".parametrizations." in name or name.endswith(("weight_g", "weight_v")) else 0.0
                named[name].index_fill_(dimension, torch.tensor(list(gone), device=named[name].device), value)
    return masked
