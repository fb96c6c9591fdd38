"""What both sides of the coverage sweep count and compare in the same way."""

import contextlib
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from math import prod
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from lut.records import ChannelGroup
from profiler.outputs import tensors_of
from profiler.undisturbed import undisturbed

Shapes = Mapping[str, tuple[int, ...]]
"""Each parameter's shape by its name."""

Positions = Mapping[str, Mapping[int, Collection[int]]]
"""For each parameter and dimension the positions concerned."""


def parameter_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Shapes of all parameters; a shared one counts once."""
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def count_elements(shapes: Shapes, positions: Positions) -> int:
    """How many elements of the parameters stand in at least one of these positions."""
    found = 0
    for name, dimensions in positions.items():
        if name in shapes:
            outside = [size - len(set(dimensions.get(d, ()))) for d, size in enumerate(shapes[name])]
            found += prod(shapes[name]) - prod(outside)
    return found


def all_positions(groups: Sequence[ChannelGroup]) -> dict[str, dict[int, set[int]]]:
    """Every position that stands in one of the groups."""
    found: dict[str, dict[int, set[int]]] = {}
    for group in groups:
        for member in group.members:
            there = found.setdefault(member.parameter, {}).setdefault(member.dimension, set())
            there.update(position for choice in member.indices for position in choice)
    return found


def without_layers(shapes: Shapes, layers: Collection[str]) -> dict[str, tuple[int, ...]]:
    """The parameters that stand in none of these modules."""
    return {name: shape for name, shape in shapes.items() if name.rpartition(".")[0] not in layers}


def share(part: int, whole: int) -> float:
    """A part of a whole; 0 where there is nothing."""
    return part / whole if whole else 0.0


def uneven_choices(groups: Sequence[ChannelGroup], seed: int) -> dict[str, list[int]]:
    """About half of every group's choices, at random: one more or less in groups of more than four."""
    generator = np.random.default_rng(seed)
    chosen = {}
    for group in groups:
        spread = int(generator.integers(-1, 2)) if group.size > 4 else 0
        count = min(group.size // 2 + spread, group.size - 1)
        if count > 0:
            chosen[group.name] = sorted(generator.choice(group.size, count, replace=False).tolist())
    return chosen


def other_choices(size: int, gone: Sequence[int]) -> list[int]:
    """As many choices as were removed, but, where that is possible, not the same."""
    moved = sorted((choice + 1) % size for choice in gone)
    return moved if moved != list(gone) else sorted((choice + 2) % size for choice in gone)


def output_layers(model: nn.Module, candidates: Sequence[tuple[Any, ...]]) -> list[str]:
    """Names of the convolutions and linear layers from which some way to the output meets no other of them.

    Read from autograd's graph, with no help of either tool: neither may remove these layers' outputs.

    Args:
        model: in eval mode; left as it was.
        candidates: inputs; the first on which it runs are taken.
    """
    made_by: dict[Any, str] = {}
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.conv._ConvNd | nn.Linear):

            def note(_module: nn.Module, _inputs: Any, output: Tensor, name: str = name) -> None:
                made_by[output.grad_fn] = name

            handles.append(module.register_forward_hook(note))
    try:
        with torch.enable_grad(), undisturbed(model), quiet():
            _, outputs = first_that_runs(candidates, lambda given: tensors_of(model(*given)))
    finally:
        for handle in handles:
            handle.remove()
    found, seen = set[str](), set[Any]()
    waiting: list[Any] = [output.grad_fn for output in outputs]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node in made_by:
            found.add(made_by[node])
        else:
            waiting.extend(before for before, _ in node.next_functions)
    return sorted(found)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings that networks and tools give."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def double_precision() -> Iterator[None]:
    """Let a network that calls `.float()` in its own code (torchvision's RAFT) run in float64 as well."""
    with mock.patch.object(Tensor, "float", Tensor.double):
        yield


def as_double(inputs: Sequence[Any]) -> tuple[Any, ...]:
    """The inputs with all float tensors in float64."""

    def convert(leaf: Any) -> Any:
        return leaf.double() if isinstance(leaf, Tensor) and leaf.dtype.is_floating_point else leaf

    return tuple(tree_map(convert, tuple(inputs)))


def run(model: nn.Module, inputs: Sequence[Any]) -> Any:
    """The output in eval mode, random numbers drawn from the same seed; the model is left as it was."""
    with torch.no_grad(), undisturbed(model), quiet():
        torch.manual_seed(0)
        return model.eval()(*inputs)


def first_that_runs(
    candidates: Sequence[tuple[Any, ...]], attempt: Callable[[tuple[Any, ...]], Any]
) -> tuple[tuple[Any, ...], Any]:
    """The first inputs on which an attempt does not raise, and what it gave; the last attempt's error is raised."""
    for inputs in candidates[:-1]:
        try:
            return inputs, attempt(inputs)
        except Exception:  # noqa: BLE001 - a picture that is too small for the network
            continue
    return candidates[-1], attempt(candidates[-1])


def is_finite(output: Any) -> bool:
    """Whether no tensor of an output holds an infinity or a NaN."""
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors_of(output))


def reason_of(error: BaseException) -> str:
    """An error in one line, its class first, in at most 160 characters."""
    lines = str(error).strip().splitlines()
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return text if len(text) <= 160 else text[:159] + "…"
