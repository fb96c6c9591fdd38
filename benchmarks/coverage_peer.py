"""One network on Torch-Pruning's side of the coverage sweep: the pruner is built, half of every group goes.

`python -m benchmarks.coverage_peer NAME` measures one and writes JSON, a line after each stage.

No network gets help of its own: no `num_heads`, no list of parameters; only the output layers are named, the same that
count on neither side. Which elements went is read without knowing how each layer is pruned: after the pruner is built,
every element is overwritten with its own number, so that those that are left tell.
"""

import contextlib
import copy
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
import torch_pruning as tp  # type: ignore[import-untyped]
from torch import Tensor, nn

from benchmarks.coverage_child import Say, Untimed, main
from benchmarks.coverage_measures import (
    Shapes,
    as_double,
    double_precision,
    first_that_runs,
    is_finite,
    output_layers,
    parameter_shapes,
    quiet,
    reason_of,
    run,
    share,
    without_layers,
)
from benchmarks.coverage_models import Subject, same
from benchmarks.coverage_records import UNFINISHED, Peer, judge_peer
from profiler.awake import awaken
from profiler.outputs import relative_difference, tensors_of

LIMIT_S = 120.0
"""Seconds that building, enumerating and pruning may take."""

ACROSS_CHANNELS = (nn.LayerNorm, nn.GroupNorm)
"""Norms that see all channels at once: without some of them they compute something else, whatever is removed."""


class LimitError(Exception):
    """The work took longer than it may."""


@contextlib.contextmanager
def limit(seconds: float) -> Iterator[None]:
    """Interrupt what runs longer than this; again each second, as libraries may swallow an exception.

    Raises:
        LimitError: it ran longer.
    """

    def ring(_signal: int, _frame: FrameType | None) -> None:
        raise LimitError(f"timeout after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


@dataclass
class Pruned:
    """A network that Torch-Pruning has pruned.

    Attributes:
        model: its tensors hold, for each element left, that element's number in the unpruned tensor.
        build_s, prune_s: seconds, as in `Peer`.
        groups, across_norms: groups, and those with a norm across the channels removed.
    """

    model: nn.Module
    build_s: float
    prune_s: float
    groups: int
    across_norms: int


def float_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers that hold floating point numbers."""
    named = [*model.named_parameters(), *model.named_buffers()]
    return {name: tensor for name, tensor in named if tensor.dtype.is_floating_point}


def number_elements(model: nn.Module) -> None:
    """Overwrite every element with its own number, in float64, which is exact up to 2^53."""
    for tensor in float_tensors(model).values():
        tensor.data = torch.arange(tensor.numel(), dtype=torch.float64).reshape(tensor.shape)


def prune(model: nn.Module, inputs: Sequence[Any], ignored: Sequence[str], *, norms: bool) -> Pruned:
    """Remove half of every group from the model itself, in place.

    Args:
        model: changed.
        inputs: positional arguments.
        ignored: names of the output layers.
        norms: prune also groups with a norm across their channels.

    Raises:
        LimitError: it took longer than `LIMIT_S`.
    """
    torch.manual_seed(0)
    with limit(LIMIT_S), quiet():
        start = time.perf_counter()
        pruner = tp.pruner.BasePruner(
            model,
            tuple(inputs),
            importance=tp.importance.RandomImportance(),
            pruning_ratio=0.5,
            ignored_layers=[model.get_submodule(name) for name in ignored],
        )
        build_s = time.perf_counter() - start
        number_elements(model)
        start = time.perf_counter()
        groups = across_norms = 0
        for group in pruner.step(interactive=True):
            across = any(isinstance(dependency.target.module, ACROSS_CHANNELS) for dependency, _ in group)
            groups, across_norms = groups + 1, across_norms + across
            if norms or not across:
                group.prune()
    return Pruned(model, build_s, time.perf_counter() - start, groups, across_norms)


def kept_elements(pruned: nn.Module) -> dict[str, Tensor]:
    """For each tensor of a numbered, pruned network the elements that are left, as indices, in its new shape."""
    return {name: tensor.data.long() for name, tensor in float_tensors(pruned).items()}


def fill(pruned: nn.Module, kept: Mapping[str, Tensor], values: Mapping[str, Tensor], *, shift: int = 0) -> nn.Module:
    """Put the unpruned network's values in the places that are left; changes `pruned`.

    Args:
        pruned: the network.
        kept: which element of the unpruned tensor stands where.
        values: the unpruned network's tensors.
        shift: take the element that stands so many places later instead: what a wrong removal would leave.
    """
    for name, tensor in float_tensors(pruned).items():
        flat = values[name].detach().reshape(-1)
        tensor.data = flat[(kept[name] + shift) % max(1, flat.numel())]
    return pruned


def mask(model: nn.Module, kept: Mapping[str, Tensor]) -> nn.Module:
    """Put zeros where a parameter's element was not kept; changes the model."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            stays = torch.zeros(parameter.numel(), dtype=torch.bool)
            stays[kept[name].reshape(-1)] = True
            parameter.mul_(stays.reshape(parameter.shape))
    return model


def _count(cell: Peer, pruned: nn.Module, shapes: Shapes) -> None:
    left = parameter_shapes(pruned)
    inner = without_layers(shapes, cell.output_layers)

    def removed(names: Shapes) -> float:
        whole = sum(torch.Size(shapes[name]).numel() for name in names)
        return share(whole - sum(torch.Size(left[name]).numel() for name in names), whole)

    cell.removed_share, cell.inner_share = removed(shapes), removed(inner)


def _judge(subject: Subject, cell: Peer, pruned: nn.Module, *, whole: bool) -> None:
    """Compare a pruned network, whose tensors are numbered, with the masked one: in float64, on awake values."""
    awake = awaken(copy.deepcopy(subject.model).double()).eval()
    if not whole:
        awake = subject.part(awake)
    part = subject.part if whole else same
    kept, values = kept_elements(pruned), float_tensors(awake)
    with double_precision():
        inputs, full = first_that_runs(subject.compared, lambda given: run(part(awake), as_double(given)))
        inputs = as_double(inputs)
        try:
            other = run(part(fill(pruned, kept, values, shift=1)), inputs)
            found = run(part(fill(pruned, kept, values)), inputs)
        except Exception as error:  # noqa: BLE001 - any error is the cell's finding
            cell.failure = f"does not run after pruning: {reason_of(error)}"
            return
        expected = run(part(mask(awake, kept)), inputs)
    shapes = [[tensor.shape for tensor in tensors_of(output)] for output in (found, expected)]
    cell.shape_wrong = shapes[0] != shapes[1]
    cell.difference = relative_difference(found, expected) if is_finite(found) else float("inf")
    cell.mask_effect = relative_difference(expected, full)
    cell.wrong_difference = relative_difference(other, expected)


def _attempt(subject: Subject, *, whole: bool, norms: bool = True) -> tuple[Pruned, list[str]]:
    """Prune a copy of the whole network or of its compared part; gives also the output layers' names in it."""
    model = copy.deepcopy(subject.model)
    part = subject.part(model)
    layers = [part.get_submodule(name) for name in output_layers(part, subject.compared)]
    target, inputs = (model, subject.inputs) if whole else (part, subject.compared[-1])
    names = {module: name for name, module in target.named_modules()}
    ignored = sorted(names[layer] for layer in layers)
    return prune(target, inputs, ignored, norms=norms), ignored


def measure(subject: Subject, say: Say, untimed: Untimed) -> Peer:
    """Measure one network; of a detector the dense part where the whole program fails.

    Args:
        subject: the network; left as it was.
        say: told the cell as it stands.
        untimed: opens a part of the work in which nothing is timed.
    """
    cell = _measure(subject, say, untimed, whole=True)
    found = judge_peer(cell)
    if subject.part is same or found.word not in {"fails", "timeout", "nothing pruned"}:
        return cell
    cell = _measure(subject, say, untimed, whole=False)
    cell.whole_failure = str(found)
    return cell


def _measure(subject: Subject, say: Say, untimed: Untimed, *, whole: bool) -> Peer:
    cell = Peer(failure=UNFINISHED, part="whole" if whole else "dense part")
    say(cell)
    try:
        pruned, cell.output_layers = _attempt(subject, whole=whole)
    except LimitError as error:
        cell.failure = str(error)
        return cell
    except Exception as error:  # noqa: BLE001 - any error is the cell's finding
        cell.failure = reason_of(error)
        return cell
    cell.failure = None
    cell.build_s, cell.prune_s = pruned.build_s, pruned.prune_s
    cell.groups, cell.across_norms = pruned.groups, pruned.across_norms
    _count(cell, pruned.model, parameter_shapes(subject.model if whole else subject.part(subject.model)))
    if not pruned.groups:
        return cell
    cell.compare_failure = UNFINISHED
    say(cell)
    try:
        with untimed():
            _compare(subject, cell, pruned, whole=whole)
        cell.compare_failure = None
    except Exception as error:  # noqa: BLE001 - any error is the cell's finding
        cell.compare_failure = reason_of(error)
    return cell


def _compare(subject: Subject, cell: Peer, pruned: Pruned, *, whole: bool) -> None:
    """All groups first, which must run; where norms across channels are among them, once more without those."""
    _judge(subject, cell, pruned.model, whole=whole)
    if cell.failure or cell.shape_wrong or not pruned.across_norms or pruned.across_norms == pruned.groups:
        return
    again, _ = _attempt(subject, whole=whole, norms=False)
    _judge(subject, cell, again.model, whole=whole)


def warm_up(subject: Subject) -> None:
    """Prune a small network."""
    prune(copy.deepcopy(subject.model), subject.inputs, [], norms=True)


if __name__ == "__main__":
    main(measure, warm_up)
