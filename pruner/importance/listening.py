"""Where channels enter a contraction: seen while the network runs, and met there by a mask that is never really there.

A function mode looks at every convolution, linear layer and matrix product, and knows its weight by identity. In front
of those that consume a group's channels it puts a function that changes nothing and hands what is entering, and the
gradient there, to a listener. The mask is a picture; this is its derivative, of this one consumer alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from pruner.importance.contractions import CONTRACTING, Contraction, contractions_of
from pruner.importance.owners import Owners

RECURRENT = frozenset({torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu})
"""Layers that contract at every step of a sequence, within one operation."""

PACKED_WEIGHTS = 3
"""Where the weights stand among a recurrent layer's arguments if sequences are packed; otherwise no list is there."""


def _weights(args: Sequence[Any]) -> list[Tensor]:
    """The weights of a recurrent layer's call, which stand in a list, behind the states where those are in one too."""
    lists = [each for each in args if isinstance(each, list | tuple)]
    return [weight for weight in lists[-1] if isinstance(weight, Tensor)] if lists else []


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
        elif func in RECURRENT and torch.is_grad_enabled() and self.owners.enter_any(_weights(args)):
            return self._step_by_step(func, args, kwargs)
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

    def _step_by_step(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Run a recurrent layer as the linear layers that it consists of, a step of the sequence after the other."""
        overloads = getattr(torch.ops.aten, func.__name__)
        packed = isinstance(args[PACKED_WEIGHTS], list | tuple)
        apart = torch._decomp.decomposition_table[overloads.data if packed else overloads.input]
        source, *others = args
        if not source.requires_grad:  # without gradients an LSTM is one operation again
            source = source.detach().requires_grad_()
        before, self.sequence_first = self.sequence_first, True
        try:
            with self:
                return apart(source, *others, **kwargs)
        finally:
            self.sequence_first = before

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
