"""Tensors made of nothing, or stretched from one element: alike everywhere, so what they meet says how long they are.

`zeros(n, 8, h, w)` gets labels of its own along each dimension. Added to channels, or written into part by part, these
are united with the channels', and go with them.
"""

import torch

from profiler.labels import Layers, along, varying
from profiler.rules.moving import move
from profiler.rules.site import Site

UNIFORM = frozenset(
    "zeros ones full empty rand randn new_zeros new_ones new_full new_empty empty_strided new_empty_strided "
    "zeros_permuted empty_permuted".split()
)
"""Operations whose elements are all alike, or drawn alike."""

NUMBERED = frozenset(
    "arange linspace logspace eye randint randperm scalar_tensor tril_indices triu_indices hann_window "
    "_local_scalar_dense item shape size sym_size is_same_size".split()
)
"""Operations whose elements differ from place to place, or that make no tensor."""

STRETCHES = frozenset("expand expand_as repeat".split())


def create(site: Site) -> list[Layers]:
    """Tensors that are the same everywhere: fresh labels along each dimension."""
    number, shape = site.step.outputs[0], site.shape()
    if number is None or not _carries(site.trace.values[number].dtype):
        return [[] for _ in site.step.outputs]
    return [[along(site.labels.created(n), d, shape) for d, n in enumerate(shape) if n > 1]]


def _carries(dtype: torch.dtype) -> bool:
    """Integers do not: they are indices, or counts."""
    return dtype.is_floating_point or dtype.is_complex or dtype == torch.bool


def numbered(site: Site) -> list[Layers]:
    """Tensors whose elements differ by their place carry no labels: none of them can go."""
    return [[] for _ in site.step.outputs]


def stretch(site: Site) -> list[Layers]:
    """Repeating along a dimension of length 1 makes elements that are alike; along another it moves labels.

    Where a weight is repeated (one bank of filters for each channel), its repetitions are alike, too.
    """
    (layers,) = move(site)
    before, after = site.value(site.step.args[0]).shape, site.shape()
    for dimension, length in enumerate(after):
        place = dimension - len(after) + len(before)
        if length > 1 and (place < 0 or before[place] == 1):
            layers.append(along(site.labels.created(length), dimension, after))
        elif place >= 0 and not site.value(site.step.args[0]).from_input and length > before[place]:
            blocks = site.labels.created(length // before[place]).repeat_interleave(before[place])
            layers.append(along(blocks, dimension, after))
    return [layers]


def triangle(site: Site) -> list[Layers]:
    """`tril` and `triu` treat elements by their row and column, which therefore stay."""
    kept: Layers = []
    for layer in site.of(site.step.args[0]):
        if set(varying(layer)) & {layer.dim() - 1, layer.dim() - 2}:
            site.freeze([layer], "treats them by their numbers")
        else:
            kept.append(layer)
    return [kept]
