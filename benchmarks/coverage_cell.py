"""One network on our side of the coverage sweep: groups are found, half of each goes, and what is left is judged.

`python -m benchmarks.coverage_cell NAME` measures one and writes JSON, a line after each stage.
"""

import contextlib
import copy
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from benchmarks.coverage_child import Say, Untimed, main
from benchmarks.coverage_measures import (
    all_positions,
    as_double,
    count_elements,
    double_precision,
    first_that_runs,
    is_finite,
    other_choices,
    output_layers,
    parameter_shapes,
    quiet,
    reason_of,
    run,
    share,
    uneven_choices,
    without_layers,
)
from benchmarks.coverage_models import Subject
from benchmarks.coverage_records import UNFINISHED, Ours
from lut.records import ChannelGroup
from profiler.awake import awaken
from profiler.backends.onnxruntime_plain import evaluate
from profiler.cut import cut, lost_positions, zero
from profiler.export import flat_arrays, largest_difference, output_arrays, to_onnx
from profiler.outputs import relative_difference
from profiler.trial import find_groups
from profiler.undisturbed import undisturbed

SEED = 17
"""Of the removals compared; the proof inside `find_groups` takes others."""


class _Cell:
    """A network with its groups, and the awake copies on which removals are compared."""

    def __init__(self, subject: Subject, cell: Ours, groups: Sequence[ChannelGroup]) -> None:
        self.subject, self.cell, self.groups = subject, cell, groups
        self.prunable = [group for group in groups if not group.frozen_because]
        self.gone = uneven_choices(self.prunable, SEED)
        self.awake = awaken(copy.deepcopy(subject.model)).eval()
        self._shrunk: nn.Module | None = None

    @property
    def shrunk(self) -> nn.Module:
        """In float32, without about half of every group, approximate ones too."""
        if self._shrunk is None:
            self._shrunk = cut(self.awake, self.groups, self.gone).eval()
        return self._shrunk

    def count(self) -> None:
        """Count groups, and parameters that can go and that go with half of every group."""
        cell, shapes = self.cell, parameter_shapes(self.subject.model)
        total = sum(torch.Size(shape).numel() for shape in shapes.values())
        cell.parameters, cell.groups = total, len(self.prunable)
        cell.choices = sum(group.size for group in self.prunable)
        cell.frozen = len(self.groups) - len(self.prunable)
        cell.approximate = sum(bool(group.approximate_because) for group in self.prunable)
        cell.frozen_reasons = dict(Counter(group.frozen_because or "" for group in self.groups if group.frozen_because))
        cell.approximate_reasons = dict(
            Counter(group.approximate_because or "" for group in self.prunable if group.approximate_because)
        )
        cell.prunable_share = share(count_elements(shapes, all_positions(self.prunable)), total)
        part = self.subject.part(self.subject.model)
        layers = output_layers(part, self.subject.compared)
        of_part = {id(module): name for name, module in self.subject.model.named_modules()}
        cell.output_layers = sorted(of_part[id(part.get_submodule(name))] for name in layers)
        inner = without_layers(shapes, cell.output_layers)
        inner_total = sum(torch.Size(shape).numel() for shape in inner.values())
        half = {group.name: range(min((group.size + 1) // 2, group.size - 1)) for group in self.prunable}
        lost = lost_positions(self.groups, half)
        cell.removed_share = share(count_elements(shapes, lost), total)
        cell.inner_share = share(count_elements(inner, lost), inner_total)

    def compare(self) -> None:
        """Compare shrunk with masked in float64, and see that the comparison would tell a wrong removal."""
        exact = {group.name: self.gone[group.name] for group in self.prunable if self._is_exact(group)}
        if not exact:
            return
        size = {group.name: group.size for group in self.prunable}
        wrong = {name: other_choices(size[name], gone) for name, gone in exact.items()}
        part, cell = self.subject.part, self.cell
        with double_precision():
            model = copy.deepcopy(self.awake).double()
            shrunk = part(cut(model, self.groups, exact, share=True))
            inputs, found = first_that_runs(self.subject.compared, lambda given: run(shrunk, as_double(given)))
            inputs = as_double(inputs)
            whole = run(part(model), inputs)
            masked = run(part(zero(model, self.groups, exact, share=True)), inputs)
            other = run(part(zero(model, self.groups, wrong, share=True)), inputs)
        cell.compared_on = list(inputs[0].shape)
        cell.difference = relative_difference(found, masked)
        cell.mask_effect = relative_difference(masked, whole)
        cell.wrong_difference = relative_difference(found, other)

    def _is_exact(self, group: ChannelGroup) -> bool:
        return group.name in self.gone and not group.approximate_because

    def run(self) -> None:
        """Run the whole shrunk program on the inputs on which groups were found."""
        before = {name: type(module) for name, module in self.subject.model.named_modules()}
        others = sum(type(module) is not before.get(name) for name, module in self.shrunk.named_modules())
        self.cell.form = f"{others} program{'s' if others > 1 else ''}" if others else "module"
        self.cell.full_finite = is_finite(run(self.shrunk, self.subject.inputs))

    def export(self) -> None:
        """Compare ONNX Runtime's output of the shrunk network with PyTorch's, in float32."""
        part = self.subject.part(self.shrunk).eval()
        inputs, expected = first_that_runs(self.subject.compared, lambda given: output_arrays(part, given))
        proto = to_onnx(part, inputs)
        found = evaluate(proto.SerializeToString(), flat_arrays(inputs))
        self.cell.onnx_difference = largest_difference(list(found.values()), expected)

    def train(self) -> None:
        """Run in train mode on the smallest inputs on which the unpruned network does and the shrunk one does as well.

        A program that is bound to a picture's size takes no other.
        """
        trainable = []
        for inputs in self.subject.training:
            with contextlib.suppress(Exception):  # what does not train before need not train after
                _train_once(self.awake, inputs)
                trainable.append(inputs)
        if trainable:
            first_that_runs(trainable, lambda given: _train_once(self.shrunk, given))
            self.cell.trains = True


def _train_once(model: nn.Module, inputs: Sequence[Any]) -> None:
    with torch.no_grad(), undisturbed(model), quiet():
        torch.manual_seed(0)
        model.train()(*inputs)


def measure(subject: Subject, say: Say, untimed: Untimed) -> Ours:
    """Measure one network; a stage that fails is kept with its reason, and the next one is tried.

    Args:
        subject: the network; left as it was.
        say: told the cell as it stands.
        untimed: opens the part of the work in which nothing is timed.
    """
    cell = Ours(failure=UNFINISHED)
    say(cell)
    start = time.perf_counter()
    try:
        with quiet():
            groups = find_groups(subject.model, subject.inputs)
    except Exception as error:  # noqa: BLE001 - any error is the cell's finding
        cell.failure = reason_of(error)
        return cell
    cell.find_s, cell.failure = time.perf_counter() - start, None
    with untimed():
        _run_stages(_Cell(subject, cell, groups), say)
    return cell


def _run_stages(work: _Cell, say: Say) -> None:
    cell = work.cell
    stages: Mapping[str, Callable[[], None]] = {
        "count": work.count,
        "compare": work.compare,
        "run": work.run,
        "export": work.export,
        "train": work.train,
    }
    for name, stage in stages.items():
        if name != "count" and not work.gone:
            break
        cell.failures[name] = UNFINISHED
        say(cell)
        try:
            stage()
            del cell.failures[name]
        except Exception as error:  # noqa: BLE001 - any error is the cell's finding
            cell.failures[name] = reason_of(error)


def warm_up(subject: Subject) -> None:
    """Find the groups of a small network."""
    find_groups(subject.model, subject.inputs)


if __name__ == "__main__":
    main(measure, warm_up)
