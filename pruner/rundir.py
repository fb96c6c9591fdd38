"""What gives a pruned network back: the plan and the weights in a run's directory; never pickle."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lut.errors import LatpruneError, RunError
from lut.program import Program, from_json
from profiler.cut import cut_positions
from profiler.dropping import drop_tensors
from profiler.export import to_onnx, write_onnx
from profiler.program_module import install
from pruner.atomic import replacing
from pruner.plan import PrunePlan
from pruner.surgery import named_tensors, shape_difference, shapes_left

PLAN = "plan.json"
WEIGHTS = "model.safetensors"
ONNX = "model.onnx"


def persistent_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and the buffers that belong to the model's state, by their first names; tied tensors once."""
    passing = {id(module._buffers[leaf]) for module in model.modules() for leaf in module._non_persistent_buffers_set}
    return {name: tensor for name, tensor in named_tensors(model).items() if id(tensor) not in passing}


def save(
    model: nn.Module,
    plan: PrunePlan,
    out: Path | str,
    *,
    inputs: Sequence[Any] | None = None,
    part: nn.Module | None = None,
) -> None:
    """Write a pruned network as `plan.json` and `model.safetensors`; other files in the directory stay.

    Args:
        model: the pruned network, perhaps trained since.
        plan: by which it was pruned.
        out: a directory, made where it is missing.
        inputs: example inputs; with them `model.onnx` is written too, which `latprune measure` and `export` take.
        part: what is deployed of the model, where it is not the whole.

    Raises:
        RunError: the model's parameters are not of the shapes that the plan leaves, or `out` cannot be written.
    """
    difference = _difference(model, plan)
    if difference:
        raise RunError(f"The model is not what the plan leaves: {difference}. Give the pruned model and its own plan.")
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_tensors(persistent_tensors(model), folder / WEIGHTS)
        plan.write(folder / PLAN)
        if inputs is not None:
            write_onnx(to_onnx(model if part is None else part, inputs), folder / ONNX)
    except OSError as error:
        raise RunError(f"{folder} cannot be written: {error}.") from error


def _difference(model: nn.Module, plan: PrunePlan) -> str | None:
    """Where a model is not what a plan leaves, in words."""
    there = named_tensors(model)
    left = [name for name in plan.dropped if name in there]
    if left:
        return f"it still has the parameter {left[0]!r} of a block that is gone"
    return shape_difference(model, {name: shape for name, shape in plan.shapes.items() if name not in plan.dropped})


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors as safetensors, whole or not at all.

    Raises:
        OSError: there is no room, or the folder cannot be written to; safetensors tells these as errors of its own.
    """
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with replacing(path) as partial:
        try:
            save_file(plain, partial, metadata={"format": "pt"})
        except SafetensorError as error:
            told = re.search(r"\(os error (\d+)\)", str(error))
            if told is None:
                raise
            raise OSError(int(told[1]), os.strerror(int(told[1])), str(path)) from error


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read tensors.

    Raises:
        RunError: there is no such file, or it is damaged.
    """
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise RunError(f"There is no {path}.") from error
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path} is damaged: {error}.") from error


def load(model_fn: Callable[[], nn.Module], run: Path | str) -> nn.Module:
    """Give a pruned network back, in eval mode, from the function that builds the unpruned one.

    Raises:
        RunError: the run is missing or damaged, or belongs to another network.
    """
    folder = Path(run)
    plan = PrunePlan.read(folder / PLAN)
    weights = load_tensors(folder / WEIGHTS)
    model = model_fn()
    try:
        shapes_left(model, plan.removed)
    except LatpruneError as error:
        raise RunError(f"{folder} does not fit the model: {error}") from error
    smaller = install(cut_positions(model, plan.removed), _programs(plan, model, folder / PLAN))
    try:
        smaller = drop_tensors(smaller, plan.dropped)
    except LatpruneError as error:
        raise RunError(f"{folder} does not fit the model: {error}") from error
    load_weights(smaller, weights, str(folder / WEIGHTS))
    return smaller.eval()


def _programs(plan: PrunePlan, model: nn.Module, source: Path) -> list[Program]:
    """The programs of a plan.

    Raises:
        RunError: they are damaged, or belong to another network.
    """
    try:
        programs = [from_json(data) for data in plan.programs]
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{source} is damaged: one of its programs cannot be read ({error!r}).") from error
    known = dict(model.named_modules(remove_duplicate=False))
    for program in programs:
        if program.module not in known:
            raise RunError(f"{source} does not fit the model: it has no module {program.module!r}.")
    return programs


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Copy weights into a model, all of them or none.

    Raises:
        RunError: one is missing, unexpected, or of another shape or type than the model's.
    """
    expected = persistent_tensors(model)
    missing = [name for name in expected if name not in weights]
    unexpected = [name for name in weights if name not in expected]
    if missing or unexpected:
        which = [f"has no {missing[0]!r}"] if missing else []
        which += [f"has {unexpected[0]!r}, which the model lacks"] if unexpected else []
        more = f" ({len(missing) + len(unexpected)} names differ)" if len(missing) + len(unexpected) > 1 else ""
        raise RunError(f"{source} belongs to another model: it {' and '.join(which)}{more}.")
    for name, tensor in expected.items():
        found = weights[name]
        if tensor.shape != found.shape or tensor.dtype != found.dtype:
            raise RunError(
                f"{source} belongs to another model: its {name} is {list(found.shape)} in {found.dtype}, "
                f"and the model's is {list(tensor.shape)} in {tensor.dtype}."
            )
    with torch.no_grad():
        for name, tensor in expected.items():
            tensor.copy_(weights[name])
