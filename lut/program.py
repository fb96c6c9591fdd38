"""A part of a network written down as a list of operations, for code whose numbers do not follow when channels go.

Plain data: nothing here knows how an operation is run. `to_json` and `from_json` are each other's inverse, except for
`axes`, which only a network that is still to be pruned needs.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Ref:
    """Stands for value number `index` among arguments."""

    index: int


@dataclass(frozen=True)
class Growing:
    """A number that grows with the batch: `base` at the batch written down, and `more` for each further one."""

    base: int
    more: int


@dataclass(frozen=True)
class Named:
    """A type, memory format or device, by kind and name; the name "network" means whatever the network has."""

    kind: str
    name: str


@dataclass(frozen=True, eq=False)
class Axis:
    """Which choice of which channel group each position along a dimension is.

    Attributes:
        groups: names.
        group: for each position an index into `groups`, or -1 where nothing can go.
        choice: for each position the number of the choice in its group.
    """

    groups: tuple[str, ...]
    group: NDArray[np.int64]
    choice: NDArray[np.int64]


Length = int | Growing
Shape = tuple[Length, ...]


@dataclass(frozen=True)
class Operation:
    """One operation: "aten.view.default", its arguments, the values that it makes, and whether gradients may flow."""

    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    outputs: tuple[int | None, ...]
    grad: bool = True

    @property
    def kind(self) -> str:
        """The name without namespace and overload: "view"."""
        return self.name.split(".")[1]


@dataclass(frozen=True)
class Form:
    """What a module does in one mode.

    Attributes:
        args, kwargs, output: of its `forward`, with tensors as `Ref`.
        operations: in order.
        parameters: the values that are parameters or buffers, and their names below the module.
        constants: the values that the code holds.
        shapes: of all values.
        axes: for the values and dimensions along which pruning removes something.
        batch: a value, a dimension of it and its length there, by which the batch is known; None where it is fixed.
    """

    args: Any
    kwargs: Any
    output: Any
    operations: tuple[Operation, ...]
    parameters: Mapping[int, str]
    constants: Mapping[int, NDArray[Any]]
    shapes: Mapping[int, Shape]
    axes: Mapping[int, Mapping[int, Axis]] = field(default_factory=dict, compare=False, repr=False)
    batch: tuple[int, int, int] | None = None


@dataclass(frozen=True, eq=False)
class Program:
    """A module of a network as a list of operations.

    Attributes:
        module: its name in the network ("" is the network itself).
        evaluation, training: what it does in either mode; None where it does not run in training.
    """

    module: str
    evaluation: Form
    training: Form | None

    @property
    def forms(self) -> Iterator[Form]:
        """The forms, each once."""
        yield self.evaluation
        if self.training is not None and self.training is not self.evaluation:
            yield self.training


def tree_to_json(tree: Any) -> Any:
    """Arguments as plain JSON."""
    match tree:
        case None | bool() | int() | str():
            return tree
        case float():
            return tree if np.isfinite(tree) else {"float": str(tree)}
        case Ref(index):
            return {"value": index}
        case Growing(base, more):
            return {"growing": [base, more]}
        case Named(kind, name):
            return {kind: name}
        case list():
            return [tree_to_json(item) for item in tree]
        case tuple():
            return {"tuple": [tree_to_json(item) for item in tree]}
        case dict():
            return {"dict": [[key, tree_to_json(item)] for key, item in tree.items()]}
    raise TypeError(f"{type(tree).__name__} cannot be written down")


def tree_from_json(data: Any) -> Any:
    """What `tree_to_json` wrote.

    Raises:
        ValueError: it is something else.
    """
    if isinstance(data, list):
        return [tree_from_json(item) for item in data]
    if not isinstance(data, dict):
        return data
    if len(data) != 1:
        raise ValueError(f"{data} is no argument of a program")
    ((kind, content),) = data.items()
    match kind:
        case "value":
            return Ref(int(content))
        case "growing":
            return Growing(*map(int, content))
        case "float":
            return float(content)
        case "tuple":
            return tuple(tree_from_json(item) for item in content)
        case "dict":
            return {key: tree_from_json(item) for key, item in content}
    return Named(kind, str(content))


def _form_to_json(form: Form) -> dict[str, Any]:
    return {
        "args": tree_to_json(form.args),
        "kwargs": tree_to_json(form.kwargs),
        "output": tree_to_json(form.output),
        "operations": [
            [
                operation.name,
                tree_to_json(list(operation.args)),
                {name: tree_to_json(item) for name, item in operation.kwargs.items()},
                list(operation.outputs),
                operation.grad,
            ]
            for operation in form.operations
        ],
        "parameters": {str(value): name for value, name in form.parameters.items()},
        "constants": {str(v): {"type": str(a.dtype), "elements": a.tolist()} for v, a in form.constants.items()},
        "shapes": {str(value): tree_to_json(list(shape)) for value, shape in form.shapes.items()},
        "batch": list(form.batch) if form.batch else None,
    }


def _form_from_json(data: Any) -> Form:
    return Form(
        args=tree_from_json(data["args"]),
        kwargs=tree_from_json(data["kwargs"]),
        output=tree_from_json(data["output"]),
        operations=tuple(
            Operation(
                name,
                tuple(tree_from_json(args)),
                {key: tree_from_json(item) for key, item in kwargs.items()},
                tuple(outputs),
                grad,
            )
            for name, args, kwargs, outputs, grad in data["operations"]
        ),
        parameters={int(value): name for value, name in data["parameters"].items()},
        constants={int(v): np.asarray(item["elements"], dtype=item["type"]) for v, item in data["constants"].items()},
        shapes={int(value): tuple(tree_from_json(shape)) for value, shape in data["shapes"].items()},
        batch=tuple(data["batch"]) if data["batch"] else None,
    )


def to_json(program: Program) -> dict[str, Any]:
    """The program as plain JSON; how pruning changes it is left out."""
    same = program.training is program.evaluation
    training = None if program.training is None else "evaluation" if same else _form_to_json(program.training)
    return {"module": program.module, "evaluation": _form_to_json(program.evaluation), "training": training}


def from_json(data: Any) -> Program:
    """The program that `to_json` wrote.

    Raises:
        KeyError, TypeError, ValueError: it is no program.
    """
    evaluation = _form_from_json(data["evaluation"])
    training = data["training"]
    return Program(
        module=data["module"],
        evaluation=evaluation,
        training=evaluation if training == "evaluation" else None if training is None else _form_from_json(training),
    )
