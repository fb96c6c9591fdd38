"""Make a network really smaller, or zero the same elements in one of the same size."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from lut.errors import LatpruneError
from lut.records import ChannelGroup
from profiler.cut import Lost, Removal, cut, number_in, zero
from profiler.trial import find_groups


def shrink(
    model: nn.Module,
    inputs: Sequence[Any],
    remove: Removal,
    *,
    freeze: Sequence[str] = (),
    groups: Sequence[ChannelGroup] | None = None,
) -> nn.Module:
    """Give back a copy of a network that is really smaller; the original is untouched.

    Args:
        model: any module.
        inputs: positional arguments of `forward`, on which the groups are found.
        remove: for each group's name the choices that go; groups that are not named stay whole.
        freeze: patterns of layers that stay whole, as `find_groups` takes them.
        groups: what `find_groups` gave, to spare the search.

    Raises:
        ValueError: an unknown or frozen group, a choice that does not exist, or a group that would lose all it has.
        LatpruneError: the network does not run on the inputs, or the groups are another network's.
    """
    return cut(model, _groups(model, inputs, freeze, groups), remove)


def mask(
    model: nn.Module,
    inputs: Sequence[Any],
    remove: Removal,
    *,
    freeze: Sequence[str] = (),
    groups: Sequence[ChannelGroup] | None = None,
) -> nn.Module:
    """Give back a copy of the same size in which all that `shrink` would remove is zero; it computes the same.

    Arguments and errors are those of `shrink`.
    """
    return zero(model, _groups(model, inputs, freeze, groups), remove)


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
