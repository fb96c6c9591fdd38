"""Labels: integers that stand for channels, laid over every tensor of a trace, and what is known of each.

A tensor's *layer* is an integer tensor of its shape, expanded with stride 0 along the dimensions in which it does not
vary. An element with label l goes when channel l goes; a weight carries one layer for its rows and one for its columns.
Label 0 means *nothing*. Labels that must go together are united; the pairs are solved at once as connected components.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

Layers = list[Tensor]


def varying(layer: Tensor) -> tuple[int, ...]:
    """The dimensions along which a layer's labels differ."""
    return tuple(d for d in range(layer.dim()) if layer.shape[d] > 1 and layer.stride(d) != 0)


def compact(layer: Tensor) -> Tensor:
    """The layer with every constant dimension cut to length 1."""
    for dimension in range(layer.dim()):
        if layer.shape[dimension] > 1 and layer.stride(dimension) == 0:
            layer = layer.narrow(dimension, 0, 1)
    return layer


def compress(layer: Tensor) -> Tensor:
    """Find the dimensions along which a dense layer is constant, and expand it along them again."""
    shape = layer.shape
    layer = compact(layer)
    for dimension in range(layer.dim()):
        if layer.shape[dimension] > 1:
            first = layer.narrow(dimension, 0, 1)
            if bool((layer == first).all()):
                layer = first
    return layer.expand(shape)


def differs(layer: Tensor, dimensions: Sequence[int], roots: NDArray[np.int64]) -> bool:
    """Whether different choices stand along any of these dimensions; label 0 differs from nothing."""
    seen = torch.from_numpy(roots)[compact(layer)]
    return any(
        bool((seen != seen.amax(dimension, keepdim=True)).logical_and(seen != roots[0]).any())
        for dimension in dimensions
    )


def along(vector: Tensor, dimension: int, shape: Sequence[int]) -> Tensor:
    """Lay a vector of labels along one dimension of a tensor of this shape."""
    view = [1] * len(shape)
    view[dimension] = vector.numel()
    return vector.reshape(view).expand(list(shape))


def broadcast(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Both tensors expanded to their common shape."""
    shape = torch.broadcast_shapes(one.shape, other.shape)  # type: ignore[no-untyped-call]
    return one.expand(shape), other.expand(shape)


@dataclass(frozen=True)
class ParameterDimension:
    """Where a run of labels was handed out: one dimension of a parameter or buffer."""

    parameter: str
    dimension: int


class Doubtful(str):
    """A reason to call labels approximate that a proof may lift: zeros add nothing to a sum, if zeros they are."""


class Labels:
    """Hands out labels and remembers which go together, which cannot go and why, and which are not exact."""

    def __init__(self) -> None:
        self.count = 1
        self.pairs: list[NDArray[np.int64]] = []
        self.frozen: list[tuple[NDArray[np.int64], str]] = []
        self.approximate: list[tuple[NDArray[np.int64], str]] = []
        self.internal: list[NDArray[np.int64]] = []
        self.aside: list[NDArray[np.int64]] = []
        self.crossings: list[tuple[Tensor, Tensor, str]] = []
        self.free: list[tuple[int, int]] = []
        self.produced: set[ParameterDimension] = set()
        self.consumed: set[ParameterDimension] = set()
        self.trained: set[str] = set()
        self.runs: dict[ParameterDimension, tuple[int, int]] = {}
        self.ends: list[int] = []

    def fresh(self, length: int) -> Tensor:
        """A vector of labels that nobody has."""
        self.count += length
        return torch.arange(self.count - length, self.count)

    def created(self, length: int) -> Tensor:
        """Fresh labels for what is the same at each place (zeros, ones, what was stretched): its length is free."""
        vector = self.fresh(length)
        self.free.append((self.count - length, self.count))
        return vector

    def is_created(self, layer: Tensor) -> bool:
        """Whether all of a layer's labels were handed out by `created`."""
        found = np.unique(compact(layer).reshape(-1).numpy())
        found = found[found > 0]
        if not len(found) or not self.free:
            return not len(found)
        starts, ends = np.asarray(self.free).T
        places = np.searchsorted(starts, found, side="right") - 1
        return bool((places >= 0).all() and (found < ends[places]).all())

    def of_parameter(self, name: str, shape: Sequence[int]) -> Layers:
        """One layer for each dimension of a parameter; the same labels each time it is asked."""
        layers = []
        for dimension, length in enumerate(shape):
            if length < 2:
                continue
            key = ParameterDimension(name, dimension)
            if key not in self.runs:
                self.fresh(length)
                self.runs[key] = (self.count - length, length)
                self.ends.append(self.count)
            start, _ = self.runs[key]
            layers.append(along(torch.arange(start, start + length), dimension, shape))
        return layers

    def keys_of(self, layer: Tensor) -> set[ParameterDimension]:
        """Where a layer's labels were handed out (those of parameters)."""
        labels = np.unique(compact(layer).reshape(-1).numpy())
        keys = list(self.runs.items())
        numbers = np.unique(np.searchsorted(np.asarray(self.ends), labels, side="right"))
        found = (keys[number] for number in numbers.tolist() if number < len(keys))
        return {key for key, (start, length) in found if ((labels >= start) & (labels < start + length)).any()}

    def unite(self, one: Tensor, other: Tensor) -> None:
        """Let labels at the same position (after broadcasting) go together; 0 meets nothing."""
        first, second = broadcast(compact(one), compact(other))
        a, b = first.reshape(-1).numpy(), second.reshape(-1).numpy()
        a, b = np.minimum(a, b), np.maximum(a, b)
        meeting = (a != b) & (a != 0)
        if meeting.any():
            keys = np.unique(a[meeting] << 32 | b[meeting])
            self.pairs.append(np.stack([keys >> 32, keys & 0xFFFFFFFF], axis=1))

    def tie(self, layer: Tensor, dimensions: Sequence[int]) -> Tensor:
        """Unite a layer's labels along these dimensions, and give back the layer without them."""
        reduced = compact(layer)
        for dimension in dimensions:
            if reduced.shape[dimension] > 1:
                one = reduced.amax(dimension, keepdim=True)
                self.unite(reduced, one)
                reduced = one
        return reduced.expand(layer.shape)

    def cross(self, large: Tensor, small: Tensor, reason: str) -> None:
        """Note that a layer meets one that varies along some of its dimensions only.

        Either whole slices go, and the small one's labels stay for this reason, or the same place goes in each slice
        and takes them along. What the rest of the network asks for decides: see `settle_crossings`.
        """
        self.crossings.append((compact(large), compact(small), reason))

    def settle_crossings(self) -> None:
        """Decide what `cross` left open; where both ways are, the longest dimension is kept."""
        while self.crossings:
            roots = self.roots()
            left = [crossing for crossing in self.crossings if not self._settled(crossing, roots)]
            if len(left) == len(self.crossings):
                large, small, reason = left.pop(0)
                if max(varying(large), key=lambda d: large.shape[d]) in varying(small):
                    self.unite(large, small)
                else:
                    self.tie(large, varying(small))
                    self.freeze([small], reason)
            self.crossings = left

    def _settled(self, crossing: tuple[Tensor, Tensor, str], roots: NDArray[np.int64]) -> bool:
        large, small, reason = crossing
        inside = varying(small)
        across = [dimension for dimension in varying(large) if dimension not in inside]
        if not differs(large, across, roots):
            self.unite(large, small)
        elif not differs(large, inside, roots):
            self.freeze([small], reason)
            self.aside.append(np.unique(small.reshape(-1).numpy()))
        else:
            return False
        return True

    def only_along(self, layer: Tensor, dimension: int) -> Tensor:
        """Tie a layer along all other dimensions; a vector of its labels along this one."""
        if not layer.numel():
            return torch.zeros(layer.shape[dimension], dtype=torch.int64)
        others = [d for d in range(layer.dim()) if d != dimension]
        tied = self.tie(layer, others)
        index = tuple(slice(None) if d == dimension % layer.dim() else 0 for d in range(layer.dim()))
        return tied[index]

    def freeze(self, layers: Sequence[Tensor], reason: str) -> None:
        """Nothing that carries these labels can be removed."""
        self._mark(self.frozen, layers, reason)

    def soften(self, layers: Sequence[Tensor], reason: str) -> None:
        """Removing these labels is not exactly masking them."""
        self._mark(self.approximate, layers, reason)

    def set_aside(self, layers: Sequence[Tensor]) -> None:
        """These labels stand along an axis that is no channel's, unless some layer makes or takes them."""
        self.aside.extend(np.unique(compact(layer).reshape(-1).numpy()) for layer in layers)

    def hide(self, layers: Sequence[Tensor]) -> None:
        """These labels are no channels at all (a kernel's width, an axis of tokens)."""
        self.internal.extend(np.unique(compact(layer).reshape(-1).numpy()) for layer in layers)

    @staticmethod
    def _mark(into: list[tuple[NDArray[np.int64], str]], layers: Sequence[Tensor], reason: str) -> None:
        into.extend((np.unique(compact(layer).reshape(-1).numpy()), reason) for layer in layers)

    def roots(self) -> NDArray[np.int64]:
        """For every label the number of its set; label 0 stays alone."""
        if not self.pairs:
            return np.arange(self.count)
        pairs = np.concatenate(self.pairs)
        ones = np.ones(len(pairs), dtype=np.int8)
        graph = coo_matrix((ones, (pairs[:, 0], pairs[:, 1])), shape=(self.count, self.count))
        return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)
