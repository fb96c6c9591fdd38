"""What a user hands over: a file or module with `model()` and `example_inputs()`, or the name of a public network."""

import functools
import traceback
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from lut.errors import LatpruneError, TaskError
from pruner.sources import Shapes, Source, load_source, on_path

NEEDED = ("model", "example_inputs")
PURPOSES = {
    "train_batches": "the batches for Fisher scores and fine-tuning",
    "loss": "the loss that is to grow as little as possible",
    "evaluate": "what is to be kept, such as the accuracy",
}
OPTIONAL = (*PURPOSES, "network", "train", "distill")


@dataclass(frozen=True)
class Task:
    """A user's network and what goes with it; all functions turn the user's exceptions into `TaskError`s.

    Attributes:
        name: of the file, the module or the network.
        model: builds the network, with its trained weights.
        example_inputs: positional arguments of `forward`, in the shapes to deploy.
        train_batches: one epoch of batches.
        loss: of the model on a batch: the sum over samples, or one value a sample.
        evaluate: named figures, the first is the one shown; higher is better.
        network: the part of the model that is deployed.
        train: the user's own trainer, called as `train(model, epochs)`.
        distill: how far the trained network's outputs are from the unpruned one's, called as
            `distill(student_output, teacher_output)`: the sum over samples, or one value a sample.
        batch: how many samples to deploy at once, or None for as many as `example_inputs` gives.
        source: where the functions come from, as the user knows it.
        spec: what `load_task` finds it by again from any folder; empty for one that was put together in Python.
    """

    name: str
    model: Callable[[], nn.Module]
    example_inputs: Callable[[], tuple[Any, ...]]
    train_batches: Callable[[], Iterable[Any]] | None = None
    loss: Callable[[nn.Module, Any], Tensor] | None = None
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None
    network: Callable[[nn.Module], nn.Module] | None = None
    train: Callable[[nn.Module, int], None] | None = None
    distill: Callable[[Any, Any], Tensor] | None = None
    batch: int | None = None
    source: str = ""
    spec: str = ""

    def build(self) -> nn.Module:
        """Build the network, in eval mode.

        Raises:
            TaskError: `model()` raises, or gives no module.
        """
        model = self.model()
        if not isinstance(model, nn.Module):
            raise TaskError(f"{self._who}: model() gives {_kind(model)}, not a torch.nn.Module.")
        return model.eval()

    def inputs(self) -> tuple[Any, ...]:
        """The positional arguments to deploy, at `batch` samples where that is given.

        Raises:
            TaskError: `example_inputs()` raises, or gives no tensors.
        """
        given = self.example_inputs()
        given = (given,) if isinstance(given, Tensor) else given
        if not isinstance(given, tuple | list):
            raise TaskError(
                f"{self._who}: example_inputs() gives {_kind(given)}, not a tuple of tensors, the positional arguments."
            )
        leaves = tree_leaves(tuple(given))
        wrong = [leaf for leaf in leaves if not isinstance(leaf, Tensor | bool | int | float | str | None)]
        if wrong or not any(isinstance(leaf, Tensor) for leaf in leaves):
            holds = f"a {_kind(wrong[0])}" if wrong else "no tensor"
            raise TaskError(f"{self._who}: example_inputs() gives {holds}; tensors or lists of them are meant.")
        return self._resized(tuple(given), leaves)

    def _resized(self, given: tuple[Any, ...], leaves: list[Any]) -> tuple[Any, ...]:
        if self.batch is None:
            return given
        if self.batch < 1:
            raise TaskError(f"--batch {self.batch}: at least 1 is meant.")
        first = next(leaf for leaf in leaves if isinstance(leaf, Tensor))
        if not first.dim() or not first.shape[0]:
            raise TaskError(f"{self._who}: --batch needs inputs with a leading dimension, not {list(first.shape)}.")
        length = first.shape[0]
        chosen = torch.arange(self.batch) % length

        def resize(leaf: Any) -> Any:
            fits = isinstance(leaf, Tensor) and leaf.dim() and leaf.shape[0] == length
            return leaf[chosen.to(leaf.device)] if fits else leaf

        return tuple(tree_map(resize, given))

    def deployed(self, model: nn.Module) -> nn.Module:
        """The part of the model that is deployed: all of it, unless the task has `network`.

        Raises:
            TaskError: `network(model)` raises, or gives no module.
        """
        if self.network is None:
            return model
        part = self.network(model)
        if not isinstance(part, nn.Module):
            raise TaskError(f"{self._who}: network(model) gives {_kind(part)}, not a torch.nn.Module.")
        return part

    def require(self, *names: str) -> None:
        """Make sure that the task has these functions.

        Raises:
            TaskError: it lacks some; says which, and what each is for.
        """
        missing = [name for name in names if getattr(self, name) is None]
        if missing:
            purposes = "; ".join(f"{name}() gives {PURPOSES.get(name, 'what this needs')}" for name in missing)
            raise TaskError(f"{self._who} lacks {' and '.join(f'{name}()' for name in missing)}: {purposes}.")

    @property
    def _who(self) -> str:
        return self.source or self.name


def load_task(spec: str, *, input_shape: str | Shapes | None = None, batch: int | None = None) -> Task:
    """Load a task.

    Args:
        spec: `path/to/task.py`, `package.module`, `torchvision:NAME` or `timm:NAME`; of the last two only the structure
            matters: their weights are random, the same ones every time.
        input_shape: of a public network, such as "1x3x224x224" (several separated by commas), or as numbers.
        batch: how many samples to deploy at once, instead of as many as the inputs hold.

    Raises:
        TaskError: there is no such task, it cannot be imported, or it lacks `model` or `example_inputs`.
    """
    source = load_source(spec, input_shape)
    for name in NEEDED:
        if name not in source.functions:
            has = ", ".join(name for name in (*NEEDED, *OPTIONAL) if name in source.functions)
            raise TaskError(
                f"{source.where} lacks {name}(): a task has at least model() and example_inputs()"
                f"{f'; this one has {has}' if has else ''}."
            )
    functions = {}
    for name in (*NEEDED, *OPTIONAL):
        function = source.functions.get(name)
        if function is None:
            continue
        if not callable(function):
            raise TaskError(f"{source.where}: {name} is {_kind(function)}, not a function.")
        functions[name] = _guarded(name, function, source)
    again = str(source.file) if source.file else source.where
    return Task(source.name, **functions, batch=batch, source=source.where, spec=again)


def _kind(value: Any) -> str:
    return "None" if value is None else type(value).__name__


def _guarded(name: str, function: Callable[..., Any], source: Source) -> Callable[..., Any]:
    """The function, whose exceptions name it and the line of the user's code."""

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        try:
            with on_path(source.folder):
                result = function(*args, **kwargs)
        except Exception as error:
            raise _explained(name, error, source) from error
        return _batches(name, result, source) if name == "train_batches" else result

    return guarded


def _batches(name: str, items: Any, source: Source) -> Iterable[Any]:
    """What gives batches, whose exceptions name the function as well, whenever they come.

    Raises:
        TaskError: it cannot be iterated over.
    """
    if isinstance(items, list | tuple):
        return items
    if not (hasattr(items, "__iter__") or hasattr(items, "__getitem__")):
        raise TaskError(f"{source.where}: {name}() gives {_kind(items)}, not batches to go through.")
    return _Sized(name, items, source) if isinstance(items, Sized) else _guarded_iteration(name, items, source)


@dataclass(frozen=True)
class _Sized:
    """A user's iterable that knows its length, such as a data loader."""

    name: str
    items: Any
    source: Source

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Any]:
        return _guarded_iteration(self.name, self.items, self.source)


def _guarded_iteration(name: str, items: Iterable[Any], source: Source) -> Iterator[Any]:
    """The items, each made where the user's other files can be imported."""
    iterator: Iterator[Any] | None = None
    while True:
        try:
            with on_path(source.folder):
                iterator = iter(items) if iterator is None else iterator
                item = next(iterator)
        except StopIteration:
            return
        except Exception as error:
            raise _explained(name, error, source) from error
        yield item


def _explained(name: str, error: Exception, source: Source) -> LatpruneError:
    if isinstance(error, LatpruneError):
        return error
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if source.file is not None and Path(frame.filename) == source.file]
    where = f"{source.where}, line {own[-1].lineno}" if own else source.where
    return TaskError(f"{where}: {name}() raises {describe(error)}")


def describe(error: BaseException) -> str:
    """An exception in one line."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
