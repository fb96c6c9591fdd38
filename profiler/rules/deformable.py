"""Deformable convolution: a convolution whose kernel's places are moved by offsets that another layer computes."""

from profiler.labels import Layers, along, varying
from profiler.rules.contracting import contract
from profiler.rules.site import Site

OFFSETS = "reads them as the moves of its kernel's places, whose number is fixed"


def deformable_convolution(site: Site) -> list[Layers]:
    """`torchvision.ops.deform_conv2d`: channels as in a convolution; where parts share offsets, parts stay equal."""
    source, _weight, offset, mask, bias = site.step.args[:5]
    groups, parts = int(site.step.args[-3]), int(site.step.args[-2])
    site.freeze([layer for ref in (offset, mask) for layer in site.of(ref) if 1 in varying(layer)], OFFSETS)
    if parts > 1:
        for layer in site.of(source):
            if 1 in varying(layer):
                site.labels.tie(site.labels.only_along(layer, 1).reshape(parts, -1), [0])
    leaving = contract(site, groups, bias)
    return [[along(leaving, 1, site.shape())] if leaving is not None else []]
