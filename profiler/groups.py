"""Find the channel groups of any network: which channels hang together, which cannot be removed, and why.

Labels are laid over the traced run (`rules`), rectangles are kept (`tie_rectangles`), and choices that occur the same
number of times in the same parameters make one group. What is reported as prunable has been tried on a shrunk copy.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from lut.errors import LatpruneError
from lut.records import ChannelGroup, Coordinate, Member
from profiler.labels import Labels, Layers, ParameterDimension, compact, varying
from profiler.rules import propagate
from profiler.trace import Trace, record

log = logging.getLogger(__name__)

Choice = tuple[str, int]
"""A group's name and the number of the choice in it."""


@dataclass(frozen=True)
class Structure:
    """What one trace says of a network: its groups, and which group's choice each channel of each value is.

    Attributes:
        trace: in eval mode, on the example inputs.
        groups: prunable and frozen, in the order of their first layer.
        layers: labels of each value of the trace.
        group_of: for each label the number of its group in `groups`, or -1.
        root_of: for each label the number of its choice.
    """

    trace: Trace
    groups: tuple[ChannelGroup, ...]
    layers: Mapping[int, Layers]
    group_of: NDArray[np.int64]
    root_of: NDArray[np.int64]

    def coordinate(self, value: int, dimension: int) -> Coordinate:
        """The length of a value's dimension as a function of the groups' widths."""
        length = self.trace.values[value].shape[dimension]
        for layer in self.layers.get(value, []):
            if dimension % layer.dim() in varying(layer) and differs(layer, dimension, self.root_of):
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


def _reasons(marks: Sequence[tuple[NDArray[np.int64], str]], roots: NDArray[np.int64]) -> dict[int, str]:
    found: dict[int, str] = {}
    for members, reason in marks:
        for root in np.unique(roots[members[members > 0]]).tolist():
            found.setdefault(root, reason)
    return found


def _positions(labels: Labels, roots: NDArray[np.int64]) -> dict[int, dict[ParameterDimension, list[int]]]:
    """For each root the positions in each parameter's dimension that go with it."""
    hidden: NDArray[np.int64] = np.unique(np.concatenate(labels.internal)) if labels.internal else np.zeros(0, np.int64)
    found: dict[int, dict[ParameterDimension, list[int]]] = defaultdict(dict)
    for key, (start, length) in labels.runs.items():
        if np.isin(start, hidden):
            continue
        for position, root in enumerate(roots[start : start + length].tolist()):
            found[root].setdefault(key, []).append(position)
    return found


def _multiplicities(layers: Iterable[Tensor], roots: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each root a number that tells how often it stands in each tensor: equal for equal counts."""
    seen: set[tuple[int, tuple[int, ...], tuple[int, ...]]] = set()
    mixed = np.zeros(int(roots.max()) + 1, dtype=np.uint64)
    for layer in layers:
        small = compact(layer)
        key = (small.data_ptr(), tuple(small.shape), small.stride())
        if key in seen:
            continue
        seen.add(key)
        found, counts = np.unique(roots[small.reshape(-1).numpy()], return_counts=True)
        if counts.max() > 1:
            mixed[found] = mixed[found] * np.uint64(6364136223846793005) + counts.astype(np.uint64)
    return mixed.astype(np.int64)


def _build(
    labels: Labels, freeze: Sequence[str], roots: NDArray[np.int64], counts: NDArray[np.int64]
) -> tuple[list[ChannelGroup], NDArray[np.int64]]:
    frozen, approximate = _reasons(labels.frozen, roots), _reasons(labels.approximate, roots)
    kinds: dict[Any, list[int]] = {}
    positions = _positions(labels, roots)
    for root, places in positions.items():
        often = tuple((key, len(at)) for key, at in places.items())
        signature = (often, frozen.get(root), approximate.get(root), 0 if root in frozen else int(counts[root]))
        kinds.setdefault(signature, []).append(root)
    groups: list[ChannelGroup] = []
    group_of = np.full(labels.count, -1, dtype=np.int64)
    number_of_root = np.full(int(roots.max()) + 1, -1, dtype=np.int64)
    names: dict[str, int] = {}
    for (often, reason, softened, _), members in kinds.items():
        where = [key for key, _ in often]
        source = next((key for key in where if key in labels.produced), where[0])
        path, _, leaf = source.parameter.rpartition(".")
        name = path if path and leaf in {"weight", "bias"} else source.parameter
        names[name] = names.get(name, 0) + 1
        unique = name if names[name] == 1 else f"{name}#{names[name]}"
        reason = reason or _unfit(where, labels) or _asked(where, freeze)
        listed = tuple(
            Member(key.parameter, key.dimension, tuple(tuple(positions[root][key]) for root in members))
            for key in where
        )
        number_of_root[members] = len(groups)
        groups.append(ChannelGroup(unique, 0 if reason else len(members), listed, reason, softened))
    group_of = number_of_root[roots]
    group_of[0] = -1
    return groups, group_of


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


def doubled(inputs: Sequence[Any]) -> tuple[Any, ...]:
    """The inputs with every tensor twice along its first dimension: train mode needs more than one sample."""

    def twice(leaf: Any) -> Any:
        return torch.cat([leaf, leaf]) if isinstance(leaf, Tensor) and leaf.dim() else leaf

    return tuple(tree_map(twice, tuple(inputs)))


def _training_trace(model: nn.Module, inputs: Sequence[Any], trace: Trace) -> Trace | None:
    """Parts that run only in training (auxiliary heads) are read from a second trace."""
    if not trace.unseen:
        return None
    try:
        return record(model, doubled(inputs), training=True)
    except LatpruneError as error:
        log.info("no trace in train mode: %s", error)
        return None


def read_structure(model: nn.Module, inputs: Sequence[Any], freeze: Sequence[str] = ()) -> Structure:
    """Trace a network and find its groups, without trying them on a shrunk copy.

    Raises:
        LatpruneError: the network does not run, or a pattern of `freeze` names no parameter.
    """
    names = [name for name, _ in model.named_parameters()]
    for pattern in freeze:
        if not any(matches(pattern, name) for name in names):
            raise LatpruneError(f"--freeze {pattern} names no layer of the network; they are named like {names[0]!r}.")
    trace = record(model, inputs)
    labels = Labels()
    layers = propagate(trace, labels)
    everything = [layer for of_value in layers.values() for layer in of_value]
    extra = _training_trace(model, inputs, trace)
    if extra is not None:
        everything.extend(layer for of_value in propagate(extra, labels).values() for layer in of_value)
    tie_rectangles(labels, everything)
    roots = labels.roots()
    groups, group_of = _build(labels, freeze, roots, _multiplicities(everything, roots))
    return Structure(trace, tuple(groups), layers, group_of, roots)
