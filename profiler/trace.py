"""The trace: what one run of a network was written down as, from which units and channel groups are read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from lut.program import Ref as Ref
from lut.records import short_hash


@dataclass(frozen=True)
class Opaque:
    """Stands for an argument that is neither a tensor nor a plain value."""

    kind: str


@dataclass(frozen=True)
class Value:
    """A tensor that stood in the run.

    Attributes:
        shape, dtype: of the tensor.
        storage: number of its memory; views and in-place results share their source's.
        name: qualified name of a parameter or buffer, else None.
        trainable: it is a parameter.
        is_input: the network was given it.
        from_input: it depends on what the network was given.
        data: the elements of a small integer or boolean tensor, else None.
        constant: the elements of a small tensor of any type that the code holds outside of parameters, else None.
        print: a few numbers made of a float tensor's elements, by which it is known again elsewhere, or None.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    storage: int
    name: str | None = None
    trainable: bool = False
    is_input: bool = False
    from_input: bool = False
    data: Tensor | None = None
    constant: Tensor | None = None
    print: tuple[float, ...] | None = None

    @property
    def bytes(self) -> int:
        """Size of the tensor, dense."""
        size = self.dtype.itemsize
        for length in self.shape:
            size *= length
        return size


@dataclass(frozen=True)
class Step:
    """One ATen operation: its arguments with tensors as `Ref`, what it made, and the modules that were running.

    `grad` tells whether the code let gradients flow there.
    """

    operation: torch._ops.OpOverload
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    outputs: tuple[int | None, ...]
    modules: tuple[str, ...]
    grad: bool = True

    @property
    def name(self) -> str:
        """The operation's name without namespace and overload: "convolution"."""
        return str(self.operation.overloadpacket.__name__)

    @property
    def inputs(self) -> tuple[int, ...]:
        """The tensors read, in the arguments' order."""
        leaves = tree_leaves((self.args, dict(self.kwargs)), is_leaf=lambda leaf: isinstance(leaf, Ref))
        return tuple(leaf.index for leaf in leaves if isinstance(leaf, Ref))

    @property
    def module(self) -> str:
        """The innermost module that was running."""
        return self.modules[-1] if self.modules else ""

    @property
    def in_place(self) -> bool:
        """Whether the operation writes into its first argument."""
        return self.name.endswith("_") and not self.name.endswith("__")


@dataclass(frozen=True)
class Call:
    """One run of a module.

    Attributes:
        module: its name.
        first, last: the steps that ran meanwhile, the last one exclusive.
        args, kwargs, output: as given and returned, with tensors as `Ref` and what is not plain as `Opaque`.
    """

    module: str
    first: int
    last: int
    args: Any
    kwargs: Any
    output: Any


@dataclass(frozen=True)
class Trace:
    """The run: values and steps in order, and which values went in and came out."""

    values: tuple[Value, ...]
    steps: tuple[Step, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    unseen: tuple[str, ...] = field(default=())
    """Parameters of the model that no step read."""
    calls: tuple[Call, ...] = field(default=(), repr=False)
    """Runs of modules, in the order in which they ended."""
    running: str | None = None
    """The innermost module that was running when the network failed, or None."""

    @property
    def network_hash(self) -> str:
        """A hash of the structure and the shapes, but not of the weights."""
        steps = [
            [str(step.operation), repr(step.args), repr(sorted(step.kwargs.items())), list(step.outputs)]
            for step in self.steps
        ]
        named = [[value.name, list(value.shape)] for value in self.values if value.name]
        return short_hash([steps, named, [list(self.values[index].shape) for index in self.inputs]])
