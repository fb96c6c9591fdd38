"""Convolutions: what they sum over unites with their weights' columns, what they make has the labels of their rows."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from profiler.labels import Layers, along, compact, varying
from profiler.rules.site import Site, columns
from profiler.rules.spatial import neighbours

FIXED = "multiplies them with a tensor whose size is fixed"
TAKES_FIXED = "takes in a tensor whose size is fixed"


NARROW = 4
"""Parts of a group convolution with fewer channels, in or out, leave little choice within them."""


@dataclass(frozen=True)
class _Ends:
    """Labels at a convolution: what enters, and the weight's dimension of inputs and of outputs."""

    entering: Tensor | None
    inputs: Tensor | None
    outputs: Tensor | None


def convolution(site: Site) -> list[Layers]:
    """Convolution, plain, grouped, depthwise or transposed, in any number of dimensions."""
    source, bias = site.step.args[0], site.step.args[2]
    transposed, groups = bool(site.step.args[6]), int(site.step.args[8])
    slid = [
        passed
        for layer in site.of(source)
        if varying(layer) and 1 not in varying(layer)
        for passed in _slides(site, layer, transposed)
    ]
    leaving = contract(site, groups, bias, transposed=transposed)
    parts = [compact(layer).narrow(1, 0, 1).expand(site.shape()) for layer in _parts(site)]
    return [[*parts, *slid, *([along(leaving, 1, site.shape())] if leaving is not None else [])]]


def _parts(site: Site) -> Layers:
    """Channels that were split over the batch dimension too (heads, each convolved alike) go part by part."""
    layers = [layer for layer in site.of(site.step.args[0]) if {0, 1} <= set(varying(layer))]
    return [site.labels.tie(layer, [d for d in varying(layer) if d > 0]) for layer in layers]


def contract(site: Site, groups: int, bias: Any, *, transposed: bool = False) -> Tensor | None:
    """Unite what enters a convolution with its weight; the labels of what leaves it, or None."""
    source, weight = site.step.args[:2]
    out_dim, in_dim = (1, 0) if transposed else (0, 1)
    site.labels.hide([layer for layer in site.of(weight) if not {0, 1} & set(varying(layer))])
    inputs, outputs = _ends_of_weight(site, in_dim, out_dim, groups)
    entering = columns(site, source, 1) if not _parts(site) else None
    ends = _Ends(entering, inputs, outputs)
    if groups == 1:
        site.role(weight, out_dim, makes=True)
        site.role(weight, in_dim, makes=False)
        _contract(site, ends)
        leaving = ends.outputs
    elif transposed:
        leaving = _grouped_transposed(site, ends, groups)
    else:
        leaving = _grouped(site, ends, groups)
    for layer in site.of(bias):
        if leaving is not None:
            site.labels.unite(layer, leaving)
        else:
            site.freeze([layer], "adds them to a tensor whose size is fixed")
    return leaving


def _ends_of_weight(site: Site, in_dim: int, out_dim: int, groups: int) -> tuple[Tensor | None, Tensor | None]:
    """The labels of a weight's two ends; where another layer made the weight, only those of its longer end can go."""
    weight = site.step.args[1]
    shape = site.value(weight).shape
    if any({in_dim, out_dim} <= set(varying(layer)) for layer in site.of(weight)):
        if shape[in_dim] > shape[out_dim]:
            return columns(site, weight, in_dim), None
        return None, columns(site, weight, out_dim)
    alike = [layer for layer in site.of(weight) if out_dim in varying(layer) and site.labels.is_created(layer)]
    if alike and groups > 1:
        others = [layer for layer in site.of(weight) if out_dim in varying(layer) and layer is not alike[0]]
        site.freeze(others, "takes them in once for each channel")
        return columns(site, weight, in_dim), site.labels.only_along(alike[0], out_dim)
    return columns(site, weight, in_dim), columns(site, weight, out_dim)


def _slides(site: Site, layer: Tensor, transposed: bool) -> Layers:
    """Labels along a dimension on which the kernel slides.

    Followed where the kernel has one place there (tokens as channels), or slides over the channels of one map (ECA).
    """
    shape, kernel = site.value(site.step.args[0]).shape, site.value(site.step.args[1]).shape
    stride, padding, dilation = site.step.args[3:6]
    (dimension, *more), single = varying(layer), shape[1] == 1
    if dimension == 0 and not more:
        return [compact(layer).expand(site.shape())]
    if not more and not transposed and (single or len(shape) == 3):
        settings = [int(numbers[dimension - 2 if len(numbers) > 1 else 0]) for numbers in (stride, padding, dilation)]
        if kernel[dimension] == 1 and settings[:2] == [1, 0]:
            return [compact(layer).expand(site.shape())]
        if single and settings[2] == 1:
            return neighbours(site, layer, (kernel[dimension], settings[0], settings[1]), site.shape())
    site.freeze([layer], "slides over them")
    site.labels.set_aside([layer])
    return []


def _contract(site: Site, ends: _Ends) -> None:
    if ends.entering is not None and ends.inputs is not None:
        site.labels.unite(ends.entering, ends.inputs)
    elif ends.inputs is not None:
        site.freeze([ends.inputs], TAKES_FIXED)
    elif ends.entering is not None and ends.entering.numel() > 1:
        site.freeze([ends.entering], FIXED)


def _go_whole(groups: int, inputs: int, outputs: int) -> bool:
    """Whether whole parts of a group convolution go, rather than the same place in each.

    The same place cuts the weight along both dimensions, so it is taken where parts leave a choice, or there are few.
    """
    return min(inputs, outputs) < NARROW and groups >= inputs


def _grouped(site: Site, ends: _Ends, groups: int) -> Tensor | None:
    """Group convolution: all parts stay equal, so either whole parts go or the same place in each part."""
    labels, weight = site.labels, site.step.args[1]
    site.role(weight, 0, makes=True)
    if ends.outputs is None or ends.entering is None:
        site.freeze([ends.entering, ends.inputs], FIXED)
        site.freeze([ends.outputs], TAKES_FIXED)
        return ends.outputs
    parts, fed = ends.outputs.reshape(groups, -1), ends.entering.reshape(groups, -1)
    if _go_whole(groups, fed.shape[1], parts.shape[1]):
        site.role(weight, 0, makes=False)
        labels.unite(labels.tie(fed, [1]), parts)
        labels.hide([ends.inputs] if ends.inputs is not None else [])
    else:
        site.role(weight, 1, makes=False)
        labels.tie(parts, [0])
        labels.tie(fed, [0])
        if ends.inputs is not None:
            labels.unite(fed[0], ends.inputs)
    return ends.outputs


def _grouped_transposed(site: Site, ends: _Ends, groups: int) -> Tensor | None:
    """The same for weights `[in, out / groups, …]`: rows count the inputs, columns the places in a part."""
    labels, weight = site.labels, site.step.args[1]
    inside = site.value(weight).shape[1]
    site.role(weight, 0, makes=False)
    if ends.entering is None or ends.inputs is None:
        site.freeze([ends.entering, ends.outputs], FIXED)
        site.freeze([ends.inputs], TAKES_FIXED)
        return ends.outputs.repeat(groups) if ends.outputs is not None else None
    labels.unite(ends.entering, ends.inputs)
    fed = ends.inputs.reshape(groups, -1)
    if _go_whole(groups, fed.shape[1], inside):
        site.role(weight, 0, makes=True)
        labels.hide([ends.outputs] if ends.outputs is not None else [])
        return labels.tie(fed, [1])[:, :1].expand(groups, inside).reshape(-1)
    site.role(weight, 1, makes=True)
    labels.tie(fed, [0])
    return ends.outputs.repeat(groups) if ends.outputs is not None else None
