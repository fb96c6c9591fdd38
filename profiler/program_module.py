"""Runs a written-down program in the place of a module: same parameters under the same names, in training or not."""

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map

from lut.errors import LatpruneError
from lut.program import Form, Growing, Named, Operation, Program, Ref, Shape


@functools.cache
def operator(name: str) -> Any:
    """The operator of this name ("aten.view.default").

    Raises:
        LatpruneError: this PyTorch has none.
    """
    namespace, packet, overload = name.split(".")
    try:
        return getattr(getattr(getattr(torch.ops, namespace), packet), overload)
    except AttributeError as error:
        raise LatpruneError(f"This PyTorch ({torch.__version__}) has no operation {name}.") from error


def _is_mark(leaf: Any) -> bool:
    return isinstance(leaf, Ref | Growing | Named)


def _last_reads(form: Form) -> list[list[int]]:
    """After each operation the values that nobody reads any more."""
    last: dict[int, int] = {}
    value: int | None
    for number, operation in enumerate(form.operations):
        leaves = tree_flatten((operation.args, dict(operation.kwargs)), is_leaf=_is_mark)[0]
        for value in [leaf.index for leaf in leaves if isinstance(leaf, Ref)]:
            last[value] = number
        for value in operation.outputs:
            if value is not None:
                last[value] = number
    kept = {leaf.index for leaf in tree_flatten(form.output, is_leaf=_is_mark)[0] if isinstance(leaf, Ref)}
    released: list[list[int]] = [[] for _ in form.operations]
    for value, number in last.items():
        if value not in kept and value not in form.parameters:
            released[number].append(value)
    return released


class ProgramModule(nn.Module):
    """A module whose code is a program. It keeps the parameters, buffers, submodules and public attributes of another.

    Shapes are those that the program was written for, but for the batch.
    """

    def __init__(self, module: nn.Module, program: Program) -> None:
        super().__init__()
        for name, value in vars(module).items():
            if not name.startswith("_") and name not in vars(self):
                setattr(self, name, value)
        self.program = program
        self._parameters, self._buffers, self._modules = module._parameters, dict(module._buffers), module._modules
        self._non_persistent_buffers_set = {
            name for name in module._non_persistent_buffers_set if not name.startswith(CONSTANT)
        }
        for name in [name for name in self._buffers if name.startswith(CONSTANT)]:
            del self._buffers[name]
        self.training = module.training
        self.released = [_last_reads(form) for form in program.forms]
        device = next((tensor.device for tensor in [*module.parameters(), *module.buffers()]), torch.device("cpu"))
        for number, form in enumerate(program.forms):
            for value, array in brought(form).items():
                constant = torch.as_tensor(array).to(device)
                self.register_buffer(f"{CONSTANT}{number}_{value}", constant, persistent=False)

    def extra_repr(self) -> str:
        """How the module shows itself."""
        return f"program of {len(self.program.evaluation.operations)} operations"

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the program.

        Raises:
            LatpruneError: the arguments are not what the program was written for, or it has no form for training.
        """
        form = self.program.training if self.training else self.program.evaluation
        if form is None:
            raise LatpruneError(f"{self.program.module or 'The network'} is a program that does not run in training.")
        number = int(form is not self.program.evaluation)
        values = _entered(form, args, kwargs, self.program.module)
        for value, name in form.parameters.items():
            values[value] = self._tensor(name)
        for value in brought(form):
            values[value] = self._buffers[f"{CONSTANT}{number}_{value}"]
        around = _Surroundings(form, values)
        for operation, released in zip(form.operations, self.released[number], strict=True):
            _run(operation, values, around)
            for value in released:
                values.pop(value, None)
        return tree_map(
            lambda leaf: values[leaf.index] if isinstance(leaf, Ref) else leaf, form.output, is_leaf=_is_mark
        )

    def _tensor(self, name: str) -> Any:
        path, _, leaf = name.rpartition(".")
        return getattr(self.get_submodule(path), leaf) if path else getattr(self, leaf)


CONSTANT = "program_constant_"
"""Begins the names of the buffers that hold a program's constants."""


def brought(form: Form) -> dict[int, NDArray[Any]]:
    """The constants that nothing in the form makes."""
    made = {value for operation in form.operations for value in operation.outputs}
    return {value: a for value, a in form.constants.items() if value not in made and value not in form.parameters}


class _Surroundings:
    """What a program takes over from the tensors that it is given: batch, type and device."""

    def __init__(self, form: Form, values: Mapping[int, Any]) -> None:
        tensors = [value for value in values.values() if isinstance(value, Tensor)]
        floating = (value for value in tensors if value.dtype.is_floating_point)
        entered = [leaf.index for leaf in tree_flatten((form.args, form.kwargs), is_leaf=_is_mark)[0]
                   if isinstance(leaf, Ref)]  # fmt: skip
        first = [values[value] for value in entered if values[value].dtype.is_floating_point]
        self.dtype = first[0].dtype if first else next((tensor.dtype for tensor in floating), torch.float32)
        self.device = values[entered[0]].device if entered else tensors[0].device if tensors else torch.device("cpu")
        self.base, self.more = 1, 0
        if form.batch:
            value, dimension, self.base = form.batch
            self.more = values[value].shape[dimension] - self.base

    def put(self, leaf: Any, values: Mapping[int, Any]) -> Any:
        """An argument as it is now."""
        if isinstance(leaf, Ref):
            return values[leaf.index]
        if isinstance(leaf, Growing):
            return leaf.base + leaf.more * self.more // self.base
        if isinstance(leaf, Named):
            if leaf.kind == "device":
                return self.device
            return self.dtype if leaf.name == "network" else getattr(torch, leaf.name)
        return leaf


def _run(operation: Operation, values: dict[int, Any], around: _Surroundings) -> None:
    args, kwargs = tree_map(
        lambda leaf: around.put(leaf, values), (operation.args, dict(operation.kwargs)), is_leaf=_is_mark
    )
    if operation.grad:
        result = operator(operation.name)(*args, **kwargs)
    else:
        with torch.no_grad():
            result = operator(operation.name)(*args, **kwargs)
    made = list(result) if isinstance(result, tuple | list) else [result]
    values.update((value, item) for value, item in zip(operation.outputs, made, strict=True) if value is not None)


def _entered(form: Form, args: Any, kwargs: Any, module: str) -> dict[int, Any]:
    """The values that the arguments are.

    Raises:
        LatpruneError: there are others than the program was written for.
    """
    name = module or "The network"
    expected = tree_flatten((form.args, form.kwargs), is_leaf=_is_mark)[0]
    given = tree_flatten((args, kwargs))[0]
    if len(given) != len(expected):
        raise LatpruneError(f"{name} is a program for {len(expected)} arguments, not for {len(given)}.")
    values: dict[int, Any] = {}
    for mark, leaf in zip(expected, given, strict=True):
        if isinstance(mark, Ref):
            if not isinstance(leaf, Tensor) or not _fits(form.shapes[mark.index], leaf):
                shape = list(leaf.shape) if isinstance(leaf, Tensor) else leaf
                raise LatpruneError(f"{name} is a program for {_written(form.shapes[mark.index])}, not for {shape}.")
            values[mark.index] = leaf
        elif mark != leaf:
            raise LatpruneError(f"{name} is a program for the argument {mark!r}, not for {leaf!r}.")
    return values


def _fits(shape: Shape, tensor: Tensor) -> bool:
    return len(shape) == tensor.dim() and all(
        isinstance(wanted, Growing) or wanted == length for wanted, length in zip(shape, tensor.shape, strict=True)
    )


def _written(shape: Shape) -> str:
    return str([f"{length.base}…" if isinstance(length, Growing) else length for length in shape]).replace("'", "")


def install(model: nn.Module, programs: Iterable[Program]) -> nn.Module:
    """Put programs in the place of modules, in place; gives back the model, which is another where it is one itself."""
    for program in programs:
        module = model.get_submodule(program.module)
        running = ProgramModule(module, program)
        if not program.module:
            return running
        for parent in list(model.modules()):
            for name, child in list(parent._modules.items()):
                if child is module:
                    parent._modules[name] = running
    return model
