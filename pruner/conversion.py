"""A run's ONNX file in the precision that is deployed, and what that costs: outputs, and the task's own figures."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from torch import nn

from lut.errors import BackendError, LatpruneError, TaskError
from profiler.backends.inputs import random_inputs
from profiler.backends.interface import Array
from profiler.export import largest_difference
from profiler.free_batch import at_batch, free_inputs
from profiler.precision.convert import Converted
from profiler.precision.devices import Fitted, convert_for, remainder_for
from profiler.precision.linear import NO_FP32_PRODUCT
from profiler.precision.offered import Precision, Remainder
from profiler.precision.running import opened
from profiler.progress import Event, Progress, silent
from pruner.calibration import calibration_feeds, file_inputs
from pruner.free_batch import Batches, spread
from pruner.rundir import load
from pruner.standin import evaluate_file
from pruner.task import Task, load_task
from pruner.training import evaluate

COMPARED = 4
"""Runs whose outputs are compared."""
STAGE = "convert"


@dataclass(frozen=True)
class Conversion:
    """What is deployed, and how it compares with the pruned network in fp32.

    Attributes:
        converted: the file's model, with what stayed in fp32.
        rewritten: linear layers that became 1×1 convolutions.
        difference: of the outputs from the fp32 file's, the largest over its outputs' largest element; None where they
            could not be compared.
        compared_on: "batches of the task" or "random inputs".
        before: the task's figures of the pruned network in fp32, or None.
        after: the same of the converted file, run as it stands by ONNX Runtime on the CPU.
        notes: what is to be known besides, in sentences; among them why a figure is None.
    """

    converted: Converted
    rewritten: tuple[str, ...] = ()
    difference: float | None = None
    compared_on: str | None = None
    before: Mapping[str, float] | None = None
    after: Mapping[str, float] | None = None
    notes: tuple[str, ...] = ()


def convert_run(
    run: Path,
    source: onnx.ModelProto,
    precision: Precision,
    *,
    remainder: Remainder | None = None,
    compute_capabilities: tuple[str, ...] = (),
    task: Task | None = None,
    batches: Batches | None = None,
    accuracy: bool = True,
    optimised: bool = False,
    progress: Progress = silent,
) -> Conversion:
    """Convert a finished run's network, and compare it with what it was.

    Args:
        run: the run's directory.
        source: its ONNX file.
        precision: to deploy.
        remainder: of int8; None for fp32, or fp16 where a target has no fp32 matrix product.
        compute_capabilities: what an engine is to be built for.
        task: whose batches and `evaluate` are used; None for the one that the run tells.
        batches: of a file that leaves its batch free: values are looked at at the best, outputs compared at all three.
        accuracy: whether to evaluate.
        optimised: whether ONNX Runtime runs the file as it will when it is deployed with it; else as it stands.
        progress: told of each step.

    Raises:
        LatpruneError: int8 without batches to calibrate on, or outputs that are not finite.
    """
    lacking = [one for one in compute_capabilities if one in NO_FP32_PRODUCT]
    notes: list[str] = []
    if remainder is None:
        remainder = remainder_for(precision, compute_capabilities)
        if remainder == "fp16":
            notes.append(f"What is not quantised runs in fp16: {lacking[0]} has no fp32 matrix product.")
    job = _Judge(run, task)
    if precision == "fp32":
        fitted = _built_there(convert_for(source, "fp32", (), compute_capabilities), lacking, notes)
        if not fitted.rewritten:
            return Conversion(fitted.converted, notes=tuple(notes))
    progress(Event(STAGE, 0, 2, f"to {precision}"))
    feeds, compared_on = job.feeds(_at_best(source, batches), needed=precision == "int8")
    notes += job.notes
    if precision != "fp32":
        fitted = convert_for(source, precision, feeds, compute_capabilities, remainder)
        fitted = _built_there(fitted, lacking, notes)
    converted = fitted.converted
    notes += converted.notes
    progress(Event(STAGE, 1, 2, "compare"))
    compared: Sequence[Mapping[str, Array]] = feeds[:COMPARED]
    if batches is not None:
        compared = spread(compared, batches, free_inputs(source))
    difference = _difference(source, converted.model, compared, notes, optimised=optimised)
    before = after = None
    if accuracy:
        job.notes.clear()
        before, after = job.figures(_at_best(converted.model, batches), optimised=optimised)
        notes += job.notes
    else:
        notes.append("Accuracy was not measured: --no-accuracy.")
    progress(Event(STAGE, 2, 2))
    return Conversion(converted, fitted.rewritten, difference, compared_on, before, after, tuple(notes))


def _built_there(fitted: Fitted, lacking: Sequence[str], notes: list[str]) -> Fitted:
    """The same; notes what was rewritten.

    Raises:
        LatpruneError: a product is left that a device among those named does not have.
    """
    devices = ", ".join(lacking)
    if fitted.left:
        first, precision = fitted.left[0], fitted.converted.precision
        kept = {one.node: one.because for one in fitted.converted.kept}
        if precision == "fp32":
            advice = "Export in fp16: --precision fp16, or build for 8.0 or later."
        elif fitted.converted.remainder == "fp32":
            advice = "Let fp16 run what is not quantised: --remainder fp16, or build for 8.0 or later."
        else:
            why = f" ({kept[first.node]})" if first.node in kept else ""
            advice = (
                f"It stays in fp32 in this {precision} file{why}. Build for 8.0 or later, or keep its values small."
            )
        raise LatpruneError(
            f"Compute capability {devices} has no fp32 matrix product, and {first.node} {first.because} "
            f"({len(fitted.left)} such nodes), which no convolution can replace. {advice}"
        )
    if fitted.rewritten:
        stay = "" if fitted.converted.precision == "fp32" else ", which stay in fp32,"
        notes.append(
            f"{len(fitted.rewritten)} linear layers{stay} became 1×1 convolutions: compute capability {devices} has no "
            "fp32 matrix product."
        )
    return fitted


def run_task(run: Path, task: Task | None = None) -> Task:
    """The task that a run tells, unless one is given.

    Raises:
        TaskError: the run tells none, or it cannot be loaded.
    """
    if task is not None:
        return task
    told = _result(run).get("task")
    if not told:
        raise TaskError("The run does not tell its task; name it: --task TASK.")
    return load_task(told["spec"], batch=told["batch"])


def _at_best(model: onnx.ModelProto, batches: Batches | None) -> onnx.ModelProto:
    return model if batches is None else at_batch(model, batches[1])


class _Judge:
    """The task and the pruned model of a run, loaded where they are needed; says what it could not do."""

    def __init__(self, run: Path, task: Task | None) -> None:
        self.notes: list[str] = []
        self._run, self._task = run, task
        self._model: nn.Module | None = None

    def feeds(self, file: onnx.ModelProto, *, needed: bool) -> tuple[list[dict[str, Array]], str]:
        """Inputs for the file: the task's, or random ones where they are not needed.

        Raises:
            LatpruneError: they are needed, and the task has none.
        """
        shapes = file_inputs(file)
        try:
            return calibration_feeds(self._found(), self._pruned(), shapes), "batches of the task"
        except LatpruneError as error:
            if needed:
                raise LatpruneError(f"int8 takes its scales from the task's batches. {error}") from error
            self.notes.append(f"Values were looked at on random inputs only. {error}")
        types = {value.name: value.type.tensor_type.elem_type for value in file.graph.input}
        wanted = [
            (name, onnx.helper.tensor_dtype_to_np_dtype(types[name]).type, shape) for name, shape in shapes.items()
        ]
        return [random_inputs(wanted, seed) for seed in range(COMPARED)], "random inputs"

    def figures(
        self, file: onnx.ModelProto, *, optimised: bool
    ) -> tuple[Mapping[str, float] | None, Mapping[str, float] | None]:
        """The task's figures before and after, as far as they can be had."""
        try:
            task, model = self._found(), self._pruned()
            before = _recorded(self._run) or evaluate(task, model)
            return before, evaluate_file(task, model, file, opened(file, optimised=optimised))
        except LatpruneError as error:
            self.notes.append(f"Accuracy was not measured. {error}")
            return None, None

    def _found(self) -> Task:
        self._task = run_task(self._run, self._task)
        return self._task

    def _pruned(self) -> nn.Module:
        if self._model is None:
            self._model = load(self._found().build, self._run)
        return self._model


def _result(run: Path) -> dict[str, Any]:
    path = run / "result.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def _recorded(run: Path) -> Mapping[str, float] | None:
    after = _result(run).get("after", {})
    return after.get("metrics") or None


def _difference(
    source: onnx.ModelProto,
    model: onnx.ModelProto,
    feeds: Sequence[Mapping[str, Array]],
    notes: list[str],
    *,
    optimised: bool,
) -> float | None:
    """The largest difference over some runs.

    Raises:
        LatpruneError: an output is not finite where the fp32 network's is.
    """
    try:
        one, other = opened(source), opened(model, optimised=optimised)
        pairs = [(list(one.outputs(feed).values()), list(other.outputs(feed).values())) for feed in feeds]
    except BackendError as error:
        notes.append(f"Outputs were not compared. {error}")
        return None
    for before, after in pairs:
        for a, b in zip(before, after, strict=True):
            if np.isfinite(a).all() and not np.isfinite(b).all():
                raise LatpruneError(
                    "The converted network gives values that are not finite where the fp32 network's are. "
                    "Export it in fp32."
                )
    return max((largest_difference(after, before) for before, after in pairs), default=None)
