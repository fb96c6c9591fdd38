"""Make a network really smaller, or zero the same elements in one of the same size."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from lut.errors import LatpruneError
from lut.records import ChannelGroup
from profiler.blocks import Block, examine_blocks
from profiler.cut import Lost, Removal, cut, number_in, zero
from profiler.network import analyze
from profiler.trial import find_groups


def shrink(
    model: nn.Module,
    inputs: Sequence[Any],
    remove: Removal,
    *,
    blocks: Sequence[str | Block] = (),
    freeze: Sequence[str] = (),
    groups: Sequence[ChannelGroup] | None = None,
) -> nn.Module:
    """Give back a copy of a network that is really smaller; the original is untouched.

    Args:
        model: any module.
        inputs: positional arguments of `forward`, on which the groups are found.
        remove: for each group's name the choices that go; groups that are not named stay whole.
        blocks: residual blocks that go wholly, by name or as `find_blocks` gave them, which spares the search. Modules
            around them are run as programs; the parameters in them are gone from the copy.
        freeze: patterns of layers that stay whole, as `find_groups` takes them.
        groups: what `find_groups` gave, to spare the search.

    Raises:
        ValueError: an unknown or frozen group or block, a choice that does not exist, or a group that would lose all.
        LatpruneError: the network does not run on the inputs, or the groups are another network's.
    """
    groups, going = _found(model, inputs, freeze, groups, blocks)
    return cut(model, groups, remove, blocks=going)


def mask(
    model: nn.Module,
    inputs: Sequence[Any],
    remove: Removal,
    *,
    blocks: Sequence[str | Block] = (),
    freeze: Sequence[str] = (),
    groups: Sequence[ChannelGroup] | None = None,
) -> nn.Module:
    """Give back a copy of the same size in which all that `shrink` would remove is zero; it computes the same.

    Of a block it is what the branch adds that is zero. Arguments and errors are those of `shrink`.
    """
    groups, going = _found(model, inputs, freeze, groups, blocks)
    return zero(model, groups, remove, blocks=going)


def _found(
    model: nn.Module,
    inputs: Sequence[Any],
    freeze: Sequence[str],
    groups: Sequence[ChannelGroup] | None,
    blocks: Sequence[str | Block],
) -> tuple[Sequence[ChannelGroup], list[Block]]:
    """The groups, and the blocks asked for."""
    if all(isinstance(block, Block) for block in blocks):
        return _groups(model, inputs, freeze, groups), [block for block in blocks if isinstance(block, Block)]
    network = analyze(model, inputs, freeze)
    there = {block.name: block for block in examine_blocks(network)}
    going = []
    for asked in blocks:
        block = there.get(asked) if isinstance(asked, str) else asked
        if block is None:
            names = ", ".join(name for name, each in there.items() if not each.frozen_because)
            raise ValueError(f"there is no block {asked!r}; these can go: {names or 'none'}")
        if block.frozen_because:
            raise ValueError(f"block {block.name!r} cannot go: {block.frozen_because}")
        going.append(block)
    return _groups(model, inputs, freeze, groups or network.groups), going


def _groups(
    model: nn.Module, inputs: Sequence[Any], freeze: Sequence[str], groups: Sequence[ChannelGroup] | None
) -> Sequence[ChannelGroup]:
    if groups is None:
        return find_groups(model, inputs, freeze)
    known = named_tensors(model)
    for group in groups:
        for member in group.members:
            if member.parameter not in known:
                raise LatpruneError(
                    f"The network has no parameter {member.parameter!r}: "
                    f"the group {group.name!r} belongs to another network."
                )
    return groups


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer by its first qualified name; tied ones once."""
    return dict(model.named_parameters()) | dict(model.named_buffers())


def shapes_left(model: nn.Module, removed: Lost) -> dict[str, tuple[int, ...]]:
    """The shape that each parameter concerned has after a removal.

    Raises:
        LatpruneError: the model has no such parameter, dimension or position.
    """
    tensors = named_tensors(model)
    shapes: dict[str, tuple[int, ...]] = {}
    for name, dimensions in removed.items():
        if name not in tensors and number_in(model, name) is not None:
            continue
        if name not in tensors:
            raise LatpruneError(f"The network has no parameter {name!r}: what should go belongs to another network.")
        shape = list(tensors[name].shape)
        for dimension, gone in dimensions.items():
            if dimension >= len(shape) or (gone and max(gone) >= shape[dimension]):
                raise LatpruneError(
                    f"{name} has shape {list(tensors[name].shape)} and no position {max(gone, default=0)} "
                    f"in dimension {dimension}: what should go belongs to another network."
                )
            shape[dimension] -= len(set(gone))
        shapes[name] = tuple(shape)
    return shapes


def shape_difference(model: nn.Module, shapes: Mapping[str, Sequence[int]]) -> str | None:
    """Where a model's parameters have other shapes than these, in words; None where they agree."""
    tensors = named_tensors(model)
    for name, shape in shapes.items():
        if name not in tensors:
            return f"it has no parameter {name!r}"
        if tuple(tensors[name].shape) != tuple(shape):
            return f"its {name} has shape {list(tensors[name].shape)}, and {list(shape)} is what the plan leaves"
    return None
