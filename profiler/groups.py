"""Find the channel groups of any network: which channels hang together, which cannot be removed, and why.

Labels are laid over the traced run (`rules`), rectangles are kept (`tie_rectangles`), and choices that occur the same
number of times in the same parameters make one group. What is reported as prunable has been tried on a shrunk copy.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from lut.errors import LatpruneError
from lut.program import Axis
from lut.records import ChannelGroup, Coordinate
from profiler.kinds import find_kinds, multiplicities
from profiler.labels import Labels, Layers, ParameterDimension, compact, varying
from profiler.recording import record
from profiler.rules import propagate
from profiler.trace import Trace

log = logging.getLogger(__name__)

Choice = tuple[str, int]
"""A group's name and the number of the choice in it."""


@dataclass(frozen=True)
class Reading:
    """One trace with the labels of its values."""

    trace: Trace
    layers: Mapping[int, Layers]


@dataclass(frozen=True)
class Structure:
    """What one trace says of a network: its groups, and which group's choice each channel of each value is.

    Attributes:
        reading: in eval mode, on the example inputs.
        labels: of all readings.
        groups: prunable and frozen, in the order of their first layer.
        group_of: for each label the number of its group in `groups`, or -1.
        choice_of: for each label the number of its choice in that group.
        root_of: for each label the number of its choice among all.
        again: in eval mode on the inputs repeated once; None where it was not needed, or does not run.
        training: the same in train mode.
    """

    reading: Reading
    labels: Labels
    groups: tuple[ChannelGroup, ...]
    group_of: NDArray[np.int64]
    choice_of: NDArray[np.int64]
    root_of: NDArray[np.int64]
    again: Reading | None = None
    training: Reading | None = None

    @property
    def trace(self) -> Trace:
        """The run in eval mode."""
        return self.reading.trace

    @property
    def layers(self) -> Mapping[int, Layers]:
        """Labels of each value of the run in eval mode."""
        return self.reading.layers

    def coordinate(self, value: int, dimension: int) -> Coordinate:
        """The length of a value's dimension as a function of the groups' widths."""
        length = self.trace.values[value].shape[dimension]
        for layer in self.layers.get(value, []):
            if layer.numel() and dimension % layer.dim() in varying(layer) and differs(layer, dimension, self.root_of):
                index = tuple(slice(None) if d == dimension % layer.dim() else 0 for d in range(layer.dim()))
                return self._count(layer[index].numpy(), length)
        return Coordinate((), length)

    def _count(self, labels: NDArray[np.int64], length: int) -> Coordinate:
        numbers, counts = np.unique(self.group_of[labels], return_counts=True)
        terms = []
        constant = length
        for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
            group = self.groups[number] if number >= 0 else None
            if group is None or group.frozen_because or group.size == 0:
                continue
            constant -= count
            terms.append((group.name, count // group.size))
        return Coordinate(tuple(sorted(terms)), constant)

    def parameter_coordinates(self) -> dict[str, tuple[Coordinate, ...]]:
        """For each parameter and buffer that groups touch, the length of each dimension."""
        touched: dict[str, dict[int, list[tuple[str, int, int]]]] = defaultdict(lambda: defaultdict(list))
        for group in self.groups:
            if not group.frozen_because:
                for member in group.members:
                    each = len(member.indices[0])
                    touched[member.parameter][member.dimension].append((group.name, each, each * group.size))
        shapes = {value.name: value.shape for value in self.trace.values if value.name}
        return {
            name: tuple(
                Coordinate(
                    tuple((group, each) for group, each, _ in dims.get(d, [])),
                    length - sum(total for _, _, total in dims.get(d, [])),
                )
                for d, length in enumerate(shapes[name])
            )
            for name, dims in touched.items()
            if name in shapes
        }


def differs(layer: Tensor, dimension: int, roots: NDArray[np.int64]) -> bool:
    """Whether different choices stand along a dimension (in a tied rectangle they do along one only)."""
    if len(varying(layer)) < 2:
        return True
    seen = torch.from_numpy(roots)[compact(layer)]
    return not bool((seen == seen.narrow(dimension, 0, 1)).all())


def axes_of(structure: Structure, reading: Reading, numbers: Mapping[int, int]) -> dict[int, dict[int, Axis]]:
    """For the values and dimensions along which something can go, which choice each position is.

    Args:
        structure: the network's.
        reading: one of its traces.
        numbers: the values asked for, and by what number each is to be known.
    """
    can_go = np.asarray([not group.frozen_because and group.size > 0 for group in structure.groups] + [False])
    known: dict[bytes, Axis | None] = {}
    found: dict[int, dict[int, Axis]] = {}
    for value, number in numbers.items():
        for layer in reading.layers.get(value, []):
            for dimension in varying(layer):
                if not layer.numel() or not differs(layer, dimension, structure.root_of):
                    continue
                labels = layer[tuple(slice(None) if d == dimension else 0 for d in range(layer.dim()))].numpy()
                key = labels.tobytes()
                if key not in known:
                    known[key] = _axis(structure, labels, can_go)
                axis = known[key]
                if axis is not None:
                    found.setdefault(number, {}).setdefault(dimension, axis)
    return found


def _axis(structure: Structure, labels: NDArray[np.int64], can_go: NDArray[np.bool_]) -> Axis | None:
    """The choices behind labels; None where none of them can go."""
    group = np.where(can_go[structure.group_of[labels]], structure.group_of[labels], -1)
    present = np.unique(group[group >= 0])
    if not len(present):
        return None
    names = tuple(structure.groups[number].name for number in present.tolist())
    return Axis(names, np.where(group >= 0, np.searchsorted(present, group), -1), structure.choice_of[labels])


def tie_rectangles(labels: Labels, layers: Iterable[Tensor]) -> None:
    """Where labels vary along two dimensions at once, tie them so that whole slices go: a tensor stays a rectangle."""
    candidates = {id(layer): compact(layer) for layer in layers if len(varying(layer)) > 1}
    while candidates:
        roots = labels.roots()
        before = len(labels.pairs)
        for layer in candidates.values():
            dims = [d for d in varying(layer) if differs(layer, d, roots)]
            if len(dims) > 1:
                kept = max(dims, key=lambda d: layer.shape[d])
                labels.tie(layer, [d for d in dims if d != kept])
        if len(labels.pairs) == before:
            return


def _build(
    labels: Labels, freeze: Sequence[str], roots: NDArray[np.int64], counts: NDArray[np.int64]
) -> tuple[list[ChannelGroup], NDArray[np.int64], NDArray[np.int64]]:
    """The groups, and for each label the numbers of its group and of its choice in it."""
    groups: list[ChannelGroup] = []
    number_of_root = np.full(int(roots.max()) + 1, -1, dtype=np.int64)
    choice_of_root = np.zeros(int(roots.max()) + 1, dtype=np.int64)
    names: dict[str, int] = {}
    for kind in find_kinds(labels, roots, counts):
        source = next((key for key in kind.where if key in labels.produced), kind.where[0])
        path, _, leaf = source.parameter.rpartition(".")
        name = path if path and leaf in {"weight", "bias"} else source.parameter
        names[name] = names.get(name, 0) + 1
        unique = name if names[name] == 1 else f"{name}#{names[name]}"
        reason = kind.frozen_because or _unfit(kind.where, labels) or _asked(kind.where, freeze)
        number_of_root[kind.roots] = len(groups)
        choice_of_root[kind.roots] = np.arange(len(kind.roots))
        size = 0 if reason else len(kind.roots)
        groups.append(ChannelGroup(unique, size, kind.members, reason, kind.approximate_because))
    group_of = number_of_root[roots]
    group_of[0] = -1
    return groups, group_of, choice_of_root[roots]


def _unfit(where: Sequence[ParameterDimension], labels: Labels) -> str | None:
    if not any(key in labels.produced for key in where):
        return "no layer of the network makes them"
    if not any(key in labels.consumed for key in where):
        return "no layer takes them in"
    return None


def matches(pattern: str, parameter: str) -> bool:
    """Whether a pattern names a parameter, its module, or any module around it."""
    parts = parameter.split(".")
    return any(fnmatchcase(".".join(parts[: end + 1]), pattern) for end in range(len(parts)))


def _asked(where: Sequence[ParameterDimension], freeze: Sequence[str]) -> str | None:
    for pattern in freeze:
        if any(matches(pattern, key.parameter) for key in where):
            return f"--freeze {pattern}"
    return None


def repeated(inputs: Sequence[Any], times: int) -> Iterator[tuple[Any, ...]]:
    """Ways to give a network more samples: every tensor again along its first dimension, then every list's items again.

    Args:
        inputs: positional arguments.
        times: how often each sample stands in what is given back.
    """

    def along_first(leaf: Any) -> Any:
        return torch.cat([leaf] * times) if isinstance(leaf, Tensor) and leaf.dim() else leaf

    yield tuple(tree_map(along_first, tuple(inputs)))
    if any(isinstance(item, list) for item in inputs):
        yield tuple(item * times if isinstance(item, list) else along_first(item) for item in inputs)


def _trace_again(model: nn.Module, inputs: Sequence[Any], *, training: bool) -> Trace | None:
    """A trace on more samples, which train mode needs; None where the network does not run on them."""
    for many in repeated(inputs, 2):
        try:
            return record(model, many, training=training)
        except LatpruneError as error:
            log.info("no trace with more samples, training=%s: %s", training, error)
    return None


def read_structure(
    model: nn.Module, inputs: Sequence[Any], freeze: Sequence[str] = (), *, known: Structure | None = None
) -> Structure:
    """Trace a network and find its groups, without trying them on a shrunk copy.

    Parts that run only in training (auxiliary heads) are read from a further trace.

    Args:
        model: left as it was.
        inputs: positional arguments.
        freeze: patterns of layers that stay whole.
        known: what was read before, to be read again with traces on more samples.

    Raises:
        LatpruneError: the network does not run, or a pattern of `freeze` names no parameter.
    """
    names = [name for name, _ in model.named_parameters()]
    for pattern in freeze:
        if not any(matches(pattern, name) for name in names):
            raise LatpruneError(f"--freeze {pattern} names no layer of the network; they are named like {names[0]!r}.")
    labels = known.labels if known else Labels()
    trace = known.trace if known else record(model, inputs)
    first = known.reading if known else Reading(trace, propagate(trace, labels))
    readings: list[Reading | None] = [first]
    for training, wanted in ((False, known is not None), (True, known is not None or bool(trace.unseen))):
        extra = _trace_again(model, inputs, training=training) if wanted else None
        readings.append(Reading(extra, propagate(extra, labels)) if extra else None)
    laid = [of_value for reading in readings if reading for of_value in reading.layers.values()]
    everything = [layer for of_value in laid for layer in of_value]
    labels.settle_crossings()
    tie_rectangles(labels, everything)
    roots = labels.roots()
    groups, group_of, choice_of = _build(labels, freeze, roots, multiplicities(everything, roots))
    return Structure(first, labels, tuple(groups), group_of, choice_of, roots, *readings[1:])
