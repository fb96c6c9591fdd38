"""Put an ONNX file in the place of a model's deployed part, so that the task's own `evaluate` judges the file."""

import contextlib
import inspect
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from lut.errors import TaskError
from profiler.backends.interface import Array, Feeds
from profiler.export import lively
from profiler.undisturbed import undisturbed
from pruner.calibration import file_inputs, in_file_batches, positional_arrays
from pruner.task import Task
from pruner.training import evaluate


class Runs(Protocol):
    """What runs an ONNX file."""

    def outputs(self, feeds: Feeds) -> dict[str, Array]:
        """The outputs by name, in the file's order."""


def evaluate_file(task: Task, model: nn.Module, file: onnx.ModelProto, session: Runs) -> dict[str, float]:
    """The task's own figures with an ONNX file in the place of the deployed part.

    Args:
        task: with `evaluate`.
        model: the whole model, whose deployed part the file was made from; as it was afterwards.
        file: tells names and shapes.
        session: runs it.

    Raises:
        TaskError: `evaluate` does not call the deployed part, or with inputs that do not fit the file.
    """
    task.require("evaluate")
    part = task.deployed(model)
    with _standing_in(part, task.inputs(), file, session) as calls:
        figures = evaluate(task, model)
    if not calls:
        raise TaskError(
            f"{task.source or task.name}: evaluate() does not call what is deployed, so that it says nothing of the "
            "file. Let network(model) give a module that the model itself calls."
        )
    return figures


@contextlib.contextmanager
def _standing_in(part: nn.Module, inputs: tuple[Any, ...], file: onnx.ModelProto, session: Runs) -> Iterator[list[int]]:
    """Have a module's `forward` answered by a file; the list gets an entry for each call."""
    with undisturbed(part), torch.no_grad():
        leaves, structure = tree_flatten(part(*lively(inputs)))
    shapes = file_inputs(file)
    fixed = next(iter(shapes.values()))[0]
    signature = inspect.signature(part.forward)
    calls: list[int] = []

    def forward(*args: Any, **kwargs: Any) -> Any:
        arrays = positional_arrays(signature, args, kwargs)
        calls.append(len(arrays))
        runs = [list(session.outputs(feeds).values()) for feeds in in_file_batches(arrays, shapes)]
        whole = [array.shape for array in arrays] == list(shapes.values())
        joined = runs[0] if whole else _joined(runs, fixed, arrays[0].shape[0])
        device = next((one.device for one in (*args, *kwargs.values()) if isinstance(one, Tensor)), None)
        found = iter(torch.from_numpy(np.ascontiguousarray(array)).to(device) for array in joined)
        return tree_unflatten([next(found) if isinstance(leaf, Tensor) else leaf for leaf in leaves], structure)

    own: Mapping[str, Any] = dict(part.__dict__)
    part.forward = forward
    try:
        yield calls
    finally:
        if "forward" in own:
            part.forward = own["forward"]
        else:
            del part.forward


def _joined(runs: list[list[Array]], size: int, count: int) -> list[Array]:
    """The outputs of several runs one behind another, without the samples that filled the last one up."""
    for array in runs[0]:
        if not array.ndim or array.shape[0] != size:
            raise TaskError(
                f"An output of shape {list(array.shape)} does not begin with the batch of {size}: runs of the ONNX "
                "file cannot be put together to the batches that evaluate() uses."
            )
    return [np.concatenate(column)[:count] for column in zip(*runs, strict=True)]
