"""Pooling, resizing, patches and regions: channels stay what they are, positions are mixed or moved."""

from collections.abc import Sequence

from torch import Tensor

from profiler.labels import Layers, along, compact, varying
from profiler.rules.site import Site

SPATIAL = frozenset(
    "max_pool1d max_pool1d_with_indices max_pool2d max_pool2d_with_indices max_pool3d max_pool3d_with_indices "
    "avg_pool1d avg_pool2d avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_avg_pool1d "
    "adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d "
    "fractional_max_pool2d fractional_max_pool3d max_unpool2d max_unpool3d upsample_bilinear2d upsample_bicubic2d "
    "upsample_linear1d upsample_trilinear3d _upsample_bilinear2d_aa _upsample_bicubic2d_aa _upsample_lanczos2d_aa "
    "grid_sampler_2d grid_sampler_3d".split()
)
NEAREST = frozenset(
    "upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d _upsample_nearest_exact2d "
    "_upsample_nearest_exact3d".split()
)
WINDOWS = frozenset("avg_pool1d avg_pool2d avg_pool3d max_pool2d_with_indices max_pool3d_with_indices".split())
"""Pooling whose windows are `kernel, stride, padding` in the arguments."""

NEIGHBOURS = "runs across channels that stand side by side"


def spatial(site: Site) -> list[Layers]:
    """Pooling and resizing: channels stay, positions are mixed."""
    shape = site.shape()
    places = next((int(digit) for digit in "123" if f"{digit}d" in site.step.name), 2)
    axis = len(shape) - places - 1
    kept: Layers = []
    if "grid_sampler" in site.step.name:
        site.freeze(site.of(site.step.args[1]), "reads them as places in a picture")
    for layer in site.of(site.step.args[0]):
        if axis in varying(layer):
            whole = site.labels.tie(layer, [d for d in varying(layer) if d > axis])
            kept.append(compact(whole).expand(shape))
        elif any(d > axis for d in varying(layer)):
            kept.extend(_over_neighbours(site, layer, axis))
        elif varying(layer):
            kept.append(compact(layer).expand(shape))
    return site.each(kept)


def _over_neighbours(site: Site, layer: Tensor, axis: int) -> Layers:
    """Labels along a dimension that is pooled: windows of neighbours (LocalResponseNorm) keep their middle's label."""
    window = _window(site, varying(layer)[0] - axis - 1) if site.step.name in WINDOWS else None
    if len(varying(layer)) == 1 and window is not None:
        return neighbours(site, layer, window, site.shape())
    site.freeze([layer], "mixes them")
    site.labels.set_aside([layer])
    return []


def _window(site: Site, place: int) -> tuple[int, int, int]:
    """Kernel, stride and padding along one of the pooled dimensions."""

    def at(position: int, name: str, default: Sequence[int]) -> int:
        numbers = site.argument(position, name) or default
        return int(numbers[place] if len(numbers) > 1 else numbers[0])

    kernel = at(1, "kernel_size", (1,))
    return kernel, at(2, "stride", (kernel,)), at(3, "padding", (0,))


def neighbours(site: Site, layer: Tensor, window: tuple[int, int, int], shape: Sequence[int]) -> Layers:
    """A window that slides over channels with stride 1 and keeps them all: each place has its middle's label.

    When a channel goes, others become neighbours: approximate. Any other window mixes them.
    """
    kernel, stride, padding = window
    (dimension,) = varying(layer)
    vector = compact(layer).reshape(-1)
    first = max(kernel // 2 - padding, 0)
    middles, ends = vector[first : first + shape[dimension]], (vector[:first], vector[first + shape[dimension] :])
    if stride == 1 and padding <= kernel // 2 and all(not len(end) or site.labels.is_created(end) for end in ends):
        site.soften([layer], NEIGHBOURS)
        return [along(middles, dimension, shape)]
    site.freeze([layer], "mixes them")
    site.labels.set_aside([layer])
    return []


def turned(site: Site) -> list[Layers]:
    """`affine_grid_generator`: a grid of places, from a matrix."""
    site.freeze(site.of(site.step.args[0]), "takes them as a matrix")
    return [[]]


def nearest(site: Site) -> list[Layers]:
    """Repeating pixels: what stands along channels stays, what stands along pixels is repeated with them."""
    shape, before = site.shape(), site.value(site.step.args[0]).shape
    kept: Layers = []
    for layer in site.of(site.step.args[0]):
        if any(shape[d] != before[d] for d in varying(layer)):
            site.freeze([layer], "repeats them")
            site.labels.set_aside([layer])
        else:
            kept.append(compact(layer).expand(shape))
    return [kept]


def unfolded(site: Site) -> list[Layers]:
    """`im2col`: each channel's patch becomes as many rows as the kernel has places."""
    shape = site.shape()
    axis = len(shape) - 2
    kept: Layers = []
    for layer in site.of(site.step.args[0]):
        if axis in varying(layer):
            vector = site.labels.only_along(layer, axis)
            kept.append(along(vector.repeat_interleave(shape[axis] // len(vector)), axis, shape))
        elif set(varying(layer)) & {layer.dim() - 1, layer.dim() - 2}:
            site.freeze([layer], "mixes them")
            site.labels.set_aside([layer])
    return [kept]


def folded(site: Site) -> list[Layers]:
    """`col2im`: the rows of one channel's patch go together."""
    shape = site.shape()
    axis = len(shape) - 3
    kept: Layers = []
    for layer in site.of(site.step.args[0]):
        if axis in varying(layer):
            vector = site.labels.only_along(layer, axis).reshape(shape[axis], -1)
            kept.append(along(site.labels.tie(vector, [1])[:, 0], axis, shape))
        elif varying(layer):
            site.freeze([layer], "mixes them")
            site.labels.set_aside([layer])
    return [kept]


def regions(site: Site) -> list[Layers]:
    """`roi_align` and `roi_pool`: each region is cut out of all channels."""
    _boxes(site)
    shape = site.shape()
    return site.each([
        along(site.labels.only_along(layer, 1), 1, shape) for layer in site.of(site.step.args[0]) if 1 in varying(layer)
    ])  # fmt: skip


def _boxes(site: Site) -> None:
    boxes = [layer for ref in site.refs[1:] for layer in site.of(ref)]
    site.freeze(boxes, "takes them as the corners of boxes")
    site.labels.set_aside(boxes)


def parted_regions(site: Site) -> list[Layers]:
    """`ps_roi_align` and `ps_roi_pool`: each place of the region reads channels of its own, which go together."""
    _boxes(site)
    shape = site.shape()
    kept: Layers = []
    for layer in site.of(site.step.args[0]):
        if 1 in varying(layer):
            vector = site.labels.only_along(layer, 1).reshape(shape[1], -1)
            kept.append(along(site.labels.tie(vector, [1])[:, 0], 1, shape))
    return site.each(kept)
