"""Operations that compute within a channel or across channels: element-wise ones, norms, pooling, reductions."""

from collections.abc import Sequence

import torch

from profiler.labels import Layers, along, compact, varying
from profiler.rules.site import Site, meet, refs_in
from profiler.trace import Step

SPATIAL = frozenset(
    "max_pool2d_with_indices max_pool3d_with_indices avg_pool1d avg_pool2d avg_pool3d _adaptive_avg_pool2d "
    "_adaptive_avg_pool3d adaptive_avg_pool2d adaptive_max_pool2d adaptive_max_pool3d upsample_bilinear2d "
    "upsample_bicubic2d upsample_linear1d upsample_trilinear3d _upsample_bilinear2d_aa _upsample_bicubic2d_aa "
    "grid_sampler_2d max_pool1d".split()
)
REDUCTIONS = frozenset(
    "mean sum amax amin max min var std var_mean std_mean prod linalg_vector_norm logsumexp any all".split()
)
ELEMENTWISE = frozenset(
    "hardswish relu6 mish gelu abs rrelu_with_noise threshold log_sigmoid log_sigmoid_forward prelu _prelu_kernel "
    "where masked_fill eq ne lt gt le ge copysign xlogy heaviside rsub floor_divide true_divide special_expit "
    "nan_to_num addcmul addcdiv".split()
)
"""Element-wise operations that PyTorch does not tag as such in every form."""

LIKE = frozenset(
    "zeros_like ones_like full_like rand_like randn_like empty_like bernoulli bernoulli_ native_dropout dropout "
    "fill zero zero_ fill_ uniform_ normal_".split()
)
"""Operations that make a tensor like another."""


def is_elementwise(step: Step) -> bool:
    """Whether a step computes each element from the elements at its place."""
    return torch.Tag.pointwise in step.operation.tags or step.name.rstrip("_") in ELEMENTWISE


def pointwise(site: Site) -> list[Layers]:
    """Element-wise operations and those that make a tensor like another."""
    return site.each(meet(site, refs_in((site.step.args, dict(site.step.kwargs))), site.shape()))


def gate(site: Site) -> list[Layers]:
    """GLU: one half gates the other."""
    dimension = int(site.argument(1, "dim", -1))
    output: Layers = []
    for layer in site.of(site.step.args[0]):
        first, second = layer.chunk(2, dimension)
        site.labels.unite(first, second)
        output.append(first)
    return [output]


def batch_norm(site: Site) -> list[Layers]:
    """BatchNorm: each channel by itself."""
    source = site.of(site.step.args[0])
    own = [item for item in source if 1 in varying(item)]
    for argument in site.step.args[1:5]:
        for layer in site.of(argument):
            if not own:
                site.freeze([layer], "normalises a tensor whose size is fixed")
            for item in own:
                site.labels.unite(item, along(compact(layer).reshape(-1), 1, item.shape))
    return site.alone(source)


def weight_norm(site: Site) -> list[Layers]:
    """Weight normalisation: each slice along one dimension has its own length, taken over all other dimensions."""
    source, length = site.step.args[:2]
    dimension = int(site.argument(2, "dim", 0))
    across = [layer for layer in site.of(source) if set(varying(layer)) - {dimension}]
    site.labels.soften(across, f"{site.where} normalises across them")
    return site.alone(meet(site, [source, length], site.shape()))


def layer_norm(site: Site) -> list[Layers]:
    """LayerNorm and RMSNorm over the last dimensions: channels that go change the statistics of the rest."""
    source, normalized = site.step.args[0], site.step.args[1]
    shape = site.value(source).shape
    lengths = len(normalized) if isinstance(normalized, list | tuple) else 1
    dims = set(range(len(shape) - lengths, len(shape)))
    inside = [layer for layer in site.of(source) if dims & set(varying(layer))]
    site.labels.soften(inside, f"{site.where} normalises across them")
    return site.alone(meet(site, site.step.args[:1] + site.step.args[2:4], shape))


def group_norm(site: Site) -> list[Layers]:
    """GroupNorm: a whole part goes exactly; with one part the channels share their statistics."""
    source, weight, bias = site.step.args[:3]
    groups = int(site.step.args[6])
    own = [layer for layer in site.of(source) if 1 in varying(layer)]
    for layer in own:
        vector = site.labels.only_along(layer, 1)
        if groups > 1:
            site.labels.tie(vector.reshape(groups, -1), [1])
        else:
            site.labels.soften([vector], f"{site.where} normalises across them")
        for argument in (weight, bias):
            for item in site.of(argument):
                site.labels.unite(vector, item)
    if not own:
        site.freeze([*site.of(weight), *site.of(bias)], "normalises a tensor whose size is fixed")
    return site.alone(site.of(source))


def spatial(site: Site) -> list[Layers]:
    """Pooling and resizing: channels stay, positions are mixed."""
    shape = site.shape()
    places = next((int(digit) for digit in "123" if f"{digit}d" in site.step.name), 2)
    axis = len(shape) - places - 1
    kept: Layers = []
    for layer in site.of(site.step.args[0]):
        if axis in varying(layer):
            kept.append(along(site.labels.only_along(layer, axis), axis, shape))
        elif any(d > axis for d in varying(layer)):
            site.freeze([layer], "mixes them")
        elif varying(layer):
            kept.append(compact(layer).expand(shape))
    return site.each(kept)


def reduction(site: Site) -> list[Layers]:
    """Sums, means and extremes: other dimensions' labels stay; across channels the result is no longer exact."""
    source = site.step.args[0]
    rank = len(site.value(source).shape)
    dims = site.argument(1, "dim")
    if isinstance(dims, bool) or not isinstance(dims, int | list | tuple) or dims in ([], ()):
        dims = list(range(rank))
    gone = {d % rank for d in ([dims] if isinstance(dims, int) else dims)} if rank else set()
    output: Layers = []
    for layer in site.of(source):
        crossed = [d for d in varying(layer) if d in gone]
        if crossed and len(varying(layer)) == len(crossed):
            site.labels.soften([layer], f"{site.where} is taken across them")
        elif crossed:
            layer = site.labels.tie(layer, crossed)
        if any(d not in gone for d in varying(layer)):
            for dimension in gone:
                layer = layer.narrow(dimension, 0, 1)
            output.append(layer.reshape(_without(layer.shape, gone, site.shape())).expand(site.shape()))
    return site.each(output)


def _without(shape: Sequence[int], gone: set[int], output: Sequence[int]) -> list[int]:
    if len(shape) == len(output):
        return list(shape)
    return [length for d, length in enumerate(shape) if d not in gone]


def softmax(site: Site) -> list[Layers]:
    """Softmax: across channels, those that stay are weighed anew."""
    rank = len(site.shape())
    dimension = int(site.argument(1, "dim", -1)) % rank
    across = [layer for layer in site.of(site.step.args[0]) if dimension in varying(layer)]
    site.labels.soften(across, f"{site.where} is taken across them")
    return [site.of(site.step.args[0])]
