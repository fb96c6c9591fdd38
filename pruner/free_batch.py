"""A run's network with its batch left free, and whether the file computes what PyTorch does at each batch asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from lut.errors import LatpruneError
from profiler.backends.interface import Array
from profiler.export import OUTPUTS_MATCH, flat_arrays, largest_difference, lively, output_arrays
from profiler.free_batch import distinct_samples, to_free_batch
from profiler.precision.running import opened
from profiler.progress import Event, Progress, silent
from pruner.rundir import load
from pruner.task import Task, describe

STAGE = "leave the batch free"
NAMES = ("min", "opt", "max")
"""What TensorRT calls the three batches of an optimisation profile."""

Batches = tuple[int, int, int]
"""The least, the one that kernels are chosen for, and the most."""


@dataclass(frozen=True)
class FreeBatch:
    """A network that runs at several batches.

    Attributes:
        model: in fp32, its batch called "batch".
        batches: that it was checked at.
        differences: of its outputs from the pruned network's in PyTorch, for each batch the largest over the output's
            largest element.
        shapes: for each batch those of the inputs and outputs by name.
        example: how many samples the task's own inputs hold: what the run's latency and memory were told for.
    """

    model: onnx.ModelProto
    batches: Batches
    differences: Mapping[int, float]
    shapes: Mapping[int, Mapping[str, tuple[int, ...]]]
    example: int

    def to_json(self) -> dict[str, Any]:
        """What a side-car tells of it."""
        return {
            **dict(zip(NAMES, self.batches, strict=True)),
            "shapes": {
                name: dict(zip(NAMES, (list(self.shapes[batch][name]) for batch in self.batches), strict=True))
                for name in self.shapes[self.batches[0]]
            },
            "differs_from_pytorch_by": {str(batch): found for batch, found in self.differences.items()},
        }


def check_batches(batches: Batches) -> None:
    """Refuse batches that are none.

    Raises:
        LatpruneError: they are not in order, or less than one.
    """
    least, best, most = batches
    if not 0 < least <= best <= most:
        raise LatpruneError(
            f"The batches {least}:{best}:{most} are in no order: give the least, the one to be fastest at and the most."
        )


def free_batch(run: Path, task: Task, batches: Batches, *, progress: Progress = silent) -> FreeBatch:
    """Export a finished run's network for any batch, and compare it with PyTorch at three.

    Raises:
        LatpruneError: the network does not run at one of the batches, fixes its batch, or the file computes something
            else.
    """
    check_batches(batches)
    progress(Event(STAGE, 0, 2, "export"))
    example = _length(task.inputs())
    task = replace(task, batch=None)
    part = task.deployed(load(task.build, run))
    traced = next((size for size in (batches[1], batches[2]) if size > 1), 2)
    sizes = tuple(dict.fromkeys(batches))
    inputs = {size: _inputs(task, size) for size in (*sizes, traced)}
    outputs = {size: _outputs(part, inputs[size], size) for size in sizes}
    model = to_free_batch(part, inputs[traced], _inputs(task, traced + 1))
    progress(Event(STAGE, 1, 2, "compare"))
    session = opened(model)
    names = [value.name for value in model.graph.input]
    differences, shapes = {}, {}
    for size in sizes:
        feeds = dict(zip(names, flat_arrays(inputs[size]), strict=True))
        found = session.outputs(feeds)
        differences[size] = largest_difference(list(found.values()), outputs[size])
        shapes[size] = {name: tuple(array.shape) for name, array in (feeds | found).items()}
    for size, difference in differences.items():
        if not difference <= OUTPUTS_MATCH:
            raise LatpruneError(
                f"The network with its batch left free differs from PyTorch by {difference:.2g} at a batch of {size}, "
                f"at most {OUTPUTS_MATCH:.0e}: its code does something else there than at {traced}, or its outputs are "
                "not finite. Export it for one batch: without --batch."
            )
    progress(Event(STAGE, 2, 2))
    return FreeBatch(model, batches, differences, shapes, example)


def spread(feeds: Sequence[Mapping[str, Array]], batches: Batches, free: Sequence[str]) -> list[dict[str, Array]]:
    """Runs of inputs at the least, the best and the most, put together from such at the best.

    Args:
        feeds: inputs by name.
        batches: the three.
        free: the inputs that have the batch.
    """
    whole = {name: np.concatenate([feed[name] for feed in feeds]) for name in free}
    return [
        {
            name: whole[name][np.arange(size) % len(whole[name])] if name in whole else array
            for name, array in feeds[0].items()
        }
        for size in dict.fromkeys(batches)
    ]


def _inputs(task: Task, size: int) -> tuple[Any, ...]:
    resized, other = (replace(task, batch=one).inputs() for one in (size, size + 1))
    return distinct_samples(lively(resized), other)


def _outputs(part: Any, inputs: tuple[Any, ...], size: int) -> list[Array]:
    try:
        return output_arrays(part, inputs)
    except Exception as error:
        raise LatpruneError(
            f"The batch cannot be left free: the network does not run on a batch of {size} ({describe(error)}). "
            "Export it for one batch: without --batch."
        ) from error


def _length(inputs: tuple[Any, ...]) -> int:
    """How many samples inputs hold."""
    return int(flat_arrays(inputs)[0].shape[0])
