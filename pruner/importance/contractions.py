"""Where channels enter a contraction: seen while the network runs, and met there by a mask that is never really there.

A function mode looks at every convolution, linear layer and matrix product, and knows its weight by identity. In front
of those that consume a group's channels it puts a function that changes nothing and hands what is entering, and the
gradient there, to a listener. The mask is a picture; this is its derivative, of this one consumer alone.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from lut.records import ChannelGroup
from pruner.importance.programs import behind_sequences

NOBODY = -1
"""Owner of a position that belongs to no prunable group."""

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


class Owners:
    """Which choice of which prunable group each position of a weight's dimension belongs to; choices count through."""

    def __init__(self, model: nn.Module, groups: Sequence[ChannelGroup]) -> None:
        """Lay the groups' members over the model's parameters and buffers."""
        named: dict[str, Tensor] = dict(model.named_parameters()) | dict(model.named_buffers())
        self.names = {id(tensor): name for name, tensor in named.items()}
        self.behind_sequences = behind_sequences(model)
        self.ranges: dict[str, range] = {}
        self.total = 0
        self.has_columns = {(member.parameter, member.dimension) for group in groups for member in group.members}
        self._owners: dict[tuple[str, int], Tensor] = {}
        self._entering: dict[tuple[str, int, int, int, int], Tensor | None] = {}
        for group in groups:
            if group.frozen_because:
                continue
            self.ranges[group.name] = range(self.total, self.total + group.size)
            for member in group.members:
                if member.parameter not in named:
                    continue
                length = named[member.parameter].shape[member.dimension]
                owner = self._owners.setdefault((member.parameter, member.dimension), torch.full((length,), NOBODY))
                for choice, positions in enumerate(member.indices, start=self.total):
                    owner[list(positions)] = choice
            self.total += group.size

    def entering(self, contraction: Contraction) -> Tensor | None:
        """For each channel that enters, the choice that owns it, or `total` for nobody; None where no group enters."""
        found = self._base(contraction.weight, contraction.dimension)
        if found is None:
            return None
        name, dimension, start = found
        length = contraction.weight.shape[contraction.dimension]
        key = (name, dimension, start, length, contraction.parts)
        if key not in self._entering:
            owner = self._owner(name, dimension, contraction)
            if owner is not None and start + length <= len(owner) and contraction.parts == 1:
                owner = owner[start : start + length]
            if owner is not None:
                owner = torch.where(owner == NOBODY, self.total, owner) if bool((owner != NOBODY).any()) else None
            self._entering[key] = owner
        return self._entering[key]

    def is_behind_sequence(self, contraction: Contraction) -> bool:
        """Whether a program feeds this weight with samples that stand behind a sequence."""
        found = self._base(contraction.weight, contraction.dimension)
        return found is not None and found[0] in self.behind_sequences

    def _base(self, weight: Tensor, dimension: int) -> tuple[str, int, int] | None:
        """Name of the weight, or of what it is a view of (a transpose, a slice), and where the view begins in it."""
        if id(weight) in self.names:
            return self.names[id(weight)], dimension, 0
        base = weight._base
        stride = weight.stride(dimension)
        if base is None or id(base) not in self.names or not stride:
            return None
        for d in range(base.dim()):
            if base.stride(d) == stride and base.shape[d] >= weight.shape[dimension]:
                start = int((weight.storage_offset() - base.storage_offset()) // stride % base.shape[d])
                return (self.names[id(base)], d, start) if start + weight.shape[dimension] <= base.shape[d] else None
        return None

    def _owner(self, name: str, dimension: int, contraction: Contraction) -> Tensor | None:
        parts = contraction.parts
        if parts == 1:
            return self._owners.get((name, dimension))
        channels = contraction.source.shape[contraction.channels]
        inner = channels // parts
        if inner == 1:
            return None  # depthwise: each channel by itself, which contracts nothing
        if dimension == 0:
            return self._owners.get((name, 0))  # transposed: the weight's rows are the channels that enter
        if (name, 1) in self.has_columns:
            owner = self._owners.get((name, 1))
            return owner.repeat(parts) if owner is not None else None
        rows = self._owners.get((name, 0))
        if rows is None:
            return None
        by_part = rows.reshape(parts, -1)
        whole = torch.where((by_part == by_part[:, :1]).all(1), by_part[:, 0], NOBODY)
        return whole.repeat_interleave(inner)


class _Listen(torch.autograd.Function):
    """Changes nothing; tells the listener what passed and its gradient."""

    @staticmethod
    def forward(ctx: Any, source: Tensor, anchor: Tensor | None, listener: Callable[[Tensor, Tensor], None]) -> Tensor:
        """Pass the tensor on; with an anchor that asks for a gradient, the graph begins here."""
        ctx.save_for_backward(source)
        ctx.listener = listener
        return source.view_as(source)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None]:
        """Tell the listener, and pass the gradient on."""
        (source,) = ctx.saved_tensors
        ctx.listener(source, gradients[0])
        return gradients[0] if ctx.needs_input_grad[0] else None, None, None


@dataclass(frozen=True)
class Heard:
    """What a listener is told in the backward pass.

    Attributes:
        owner: for each channel the choice that owns it, or the number of choices for nobody.
        channels: the dimension of the tensor that is contracted.
        sliding: whether it is a convolution, whose dimensions beside the channels are samples and places.
        sequence_first: whether samples stand behind the sequence (inside multi-head attention).
        entered, gradient: what entered the contraction, and dL/d(it) through this contraction alone.
    """

    owner: Tensor
    channels: int
    sliding: bool
    sequence_first: bool
    entered: Tensor
    gradient: Tensor


class Listening(TorchFunctionMode):
    """While active, every contraction that takes in channels of a prunable group is listened to."""

    def __init__(self, owners: Owners, listener: Callable[[Heard], None]) -> None:
        """Take the groups' owners, and whom to tell."""
        super().__init__()
        self.owners = owners
        self.listener = listener
        self.sequence_first = False

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in CONTRACTING and torch.is_grad_enabled():
            for contraction in contractions_of(func, args, kwargs):
                owner = self.owners.entering(contraction)
                if owner is not None:
                    args, kwargs = self._listen(contraction, owner, args, kwargs)
                    break
        elif func is functional.multi_head_attention_forward:
            return self._look_inside(args, kwargs)
        return func(*args, **kwargs)

    def _listen(
        self, contraction: Contraction, owner: Tensor, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[Sequence[Any], Mapping[str, Any]]:
        source = contraction.source
        sequence_first = self.sequence_first or self.owners.is_behind_sequence(contraction)
        # Where weights ask for no gradient the graph begins here, and nothing before it costs anything. At an anchor
        # without elements: a leaf would be held to the end, with its gradient.
        anchor = None if source.requires_grad else source.new_empty(0, requires_grad=True)
        # The graph holds `tell` to the end: it must not hold the tensor, which goes when the backward pass leaves it.
        channels, sliding, listener = contraction.channels, contraction.sliding, self.listener

        def tell(entered: Tensor, gradient: Tensor) -> None:
            listener(Heard(owner, channels, sliding, sequence_first, entered, gradient))

        heard = _Listen.apply(source, anchor, tell)
        if isinstance(contraction.argument, str):
            return args, {**kwargs, contraction.argument: heard}
        place = contraction.argument
        return [*args[:place], heard, *args[place + 1 :]], kwargs

    def _look_inside(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Run multi-head attention's own code with this mode on; by itself it hides its layers from function modes."""
        hidden = functional.multi_head_attention_forward
        names = {**hidden.__globals__, "has_torch_function": lambda _tensors: False}
        opened = FunctionType(hidden.__code__, names, hidden.__name__, hidden.__defaults__)
        opened.__kwdefaults__ = hidden.__kwdefaults__
        before, self.sequence_first = self.sequence_first, True
        try:
            with self:
                return opened(*args, **kwargs)
        finally:
            self.sequence_first = before
