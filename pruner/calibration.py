"""The inputs that a deployed network gets while a task's batches are learnt from, in the shapes of its ONNX file."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import onnx
import torch
from torch import nn

from lut.errors import TaskError
from profiler.backends.interface import Array
from profiler.export import flat_arrays
from pruner.task import Task

SAMPLES = 64
"""Runs of the ONNX file that scales are taken from; more take longer and change little."""

Shapes = Mapping[str, tuple[int, ...]]
"""Of a file's inputs, by name, in order."""


class _Enough(BaseException):
    """Stops the task's own code once there are enough inputs; no `except Exception` of the user's catches it."""


def file_inputs(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Names and fixed shapes of an ONNX file's inputs."""
    return {value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim) for value in model.graph.input}


def calibration_feeds(
    task: Task, model: nn.Module, shapes: Shapes, *, samples: int = SAMPLES
) -> list[dict[str, Array]]:
    """Collect what the deployed part of a model is given while `loss` runs on `train_batches`, in eval mode.

    Args:
        task: with `train_batches` and `loss`.
        model: the whole model.
        shapes: of the inputs of the ONNX file.
        samples: how many runs of the file to collect inputs for, at most.

    Returns:
        For each run its inputs by name, cut or filled up to the file's batch; at least one.

    Raises:
        TaskError: the task lacks one of the two, the loss does not call the deployed part, or its inputs do not fit the
            file.
    """
    task.require("train_batches", "loss")
    assert task.train_batches is not None
    assert task.loss is not None
    part = task.deployed(model)
    signature = inspect.signature(part.forward)
    feeds: list[dict[str, Array]] = []

    def hear(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        arrays = positional_arrays(signature, args, kwargs)
        feeds.extend(islice(in_file_batches(arrays, shapes), samples - len(feeds)))
        if len(feeds) >= samples:
            raise _Enough

    hook = part.register_forward_pre_hook(hear, with_kwargs=True)
    try:
        model.eval()
        with torch.no_grad():
            for batch in task.train_batches():
                task.loss(model, batch)
    except _Enough:
        pass
    finally:
        hook.remove()
    if not feeds:
        raise TaskError(
            f"{task.source or task.name}: loss() does not call the network that is deployed, so that none of its "
            "inputs are known. Let it call the model, or what network(model) gives."
        )
    return feeds


def positional_arrays(signature: inspect.Signature, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Array]:
    """A call's tensors in the order of the ONNX file's inputs.

    Raises:
        TaskError: arguments are given by name that cannot be put in order.
    """
    if kwargs:
        bound = signature.bind(*args, **kwargs)
        if bound.kwargs:
            raise TaskError(
                f"The deployed network is called with {', '.join(bound.kwargs)} by name only; an ONNX file's inputs "
                "are positional arguments."
            )
        args = bound.args
    return flat_arrays(args)


def in_file_batches(arrays: Sequence[Array], shapes: Shapes) -> Iterator[dict[str, Array]]:
    """Cut a call's inputs into runs of the file; the last one is filled up with its own samples.

    Raises:
        TaskError: there are too many or too few inputs, or they have other shapes than the file's beside the batch.
    """
    if len(arrays) != len(shapes):
        raise TaskError(
            f"The ONNX file has {len(shapes)} inputs, and the network is called with {len(arrays)} tensors."
        )
    wanted = list(shapes.items())
    if all(array.shape == shape for array, (_, shape) in zip(arrays, wanted, strict=True)):
        yield {name: array for array, (name, _) in zip(arrays, wanted, strict=True)}
        return
    for array, (name, shape) in zip(arrays, wanted, strict=True):
        if not shape or array.shape[1:] != shape[1:] or not array.ndim:
            raise TaskError(
                f"The network is called with {name} of shape {list(array.shape)}, and the ONNX file takes "
                f"{list(shape)}: they differ in more than the batch."
            )
    counts = {array.shape[0] for array in arrays}
    sizes = {shape[0] for _, shape in wanted}
    if len(counts) > 1 or len(sizes) > 1:
        raise TaskError(
            "The network's inputs have different leading dimensions, so that no batch can be cut from them."
        )
    count, size = counts.pop(), sizes.pop()
    for start in range(0, count, size):
        chosen = [start + number % min(size, count - start) for number in range(size)]
        yield {name: array[chosen] for array, (name, _) in zip(arrays, wanted, strict=True)}
