"""Which calls of PyTorch contract a tensor with a weight, and where the channels stand that enter."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

CONVOLUTIONS = {torch.conv1d: 1, torch.conv2d: 2, torch.conv3d: 3}
TRANSPOSED = {torch.conv_transpose1d: 1, torch.conv_transpose2d: 2, torch.conv_transpose3d: 3}
PRODUCTS = {torch.matmul, torch.mm, torch.bmm, Tensor.matmul, Tensor.mm, Tensor.bmm, Tensor.__matmul__}
ADDED_PRODUCTS = {torch.addmm, torch.baddbmm, Tensor.addmm, Tensor.baddbmm}
PLAIN = {
    torch.ops.aten.mm.default: torch.mm,
    torch.ops.aten.bmm.default: torch.bmm,
    torch.ops.aten.addmm.default: torch.addmm,
    torch.ops.aten.baddbmm.default: torch.baddbmm,
}
"""Operations as programs call them, and what they are."""

CONTRACTING = frozenset(
    {
        *CONVOLUTIONS,
        *TRANSPOSED,
        *PRODUCTS,
        *ADDED_PRODUCTS,
        *PLAIN,
        functional.linear,
        torch.ops.aten.convolution.default,
    }
)
"""Everything that `contractions_of` knows: all else goes on at once, as a network calls ten times as much of it."""

GROUPS_ARGUMENT = 6
"""Where `groups` stands among the arguments of every convolution, transposed or not."""


@dataclass(frozen=True)
class Contraction:
    """A tensor about to be contracted with another, which may be a weight.

    Attributes:
        argument: place or keyword of the tensor in the call.
        source: the tensor.
        channels: its dimension that is contracted.
        weight: what it is contracted with.
        dimension: the weight's dimension that the channels meet.
        parts: of a group convolution, else 1.
        sliding: whether it is a convolution, whose dimensions beside the channels are samples and places.
    """

    argument: int | str
    source: Tensor
    channels: int
    weight: Tensor
    dimension: int
    parts: int = 1
    sliding: bool = False


def contractions_of(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[Contraction]:
    """What a call contracts, once for each operand that could be the weight."""

    def argument(place: int, name: str) -> tuple[int | str, Any]:
        return (place, args[place]) if place < len(args) else (name, kwargs.get(name))

    if func is torch.ops.aten.convolution.default:
        yield from _any_convolution(args)
        return
    func = PLAIN.get(func, func)
    dimensions = CONVOLUTIONS.get(func) or TRANSPOSED.get(func)
    if dimensions or func is functional.linear:
        key, source = argument(0, "input")
        weight = argument(1, "weight")[1]
        if not (isinstance(source, Tensor) and isinstance(weight, Tensor)):
            return
        if dimensions:
            parts = argument(GROUPS_ARGUMENT, "groups")[1] or 1
            channels = source.dim() - dimensions - 1
            yield Contraction(key, source, channels, weight, 0 if func in TRANSPOSED else 1, parts, sliding=True)
        else:
            yield Contraction(key, source, source.dim() - 1, weight, weight.dim() - 1)
    elif func in PRODUCTS or func in ADDED_PRODUCTS:
        first = 1 if func in ADDED_PRODUCTS else 0
        names = ("mat1", "mat2") if func is torch.addmm else ("batch1", "batch2") if first else ("input", "other")
        left_key, left = argument(first, names[0])
        right_key, right = argument(first + 1, names[1])
        if isinstance(left, Tensor) and isinstance(right, Tensor):
            left_inner, right_inner = left.dim() - 1, max(right.dim() - 2, 0)
            yield Contraction(left_key, left, left_inner, right, right_inner)
            yield Contraction(right_key, right, right_inner, left, left_inner)


def _any_convolution(args: Sequence[Any]) -> Iterator[Contraction]:
    """The one operation that programs know for all convolutions."""
    source, weight, transposed, parts = args[0], args[1], bool(args[6]), int(args[8])
    channels = source.dim() - (weight.dim() - 2) - 1
    yield Contraction(0, source, channels, weight, 0 if transposed else 1, parts, sliding=True)
