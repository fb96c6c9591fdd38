"""Operations that contract: convolution, matrix products and attention unite what they sum over with their weights."""

from dataclasses import dataclass

from torch import Tensor

from profiler.labels import Layers, along, varying
from profiler.rules.site import Site, columns, join
from profiler.trace import Ref

FIXED = "multiplies them with a tensor whose size is fixed"
TAKES_FIXED = "takes in a tensor whose size is fixed"


@dataclass(frozen=True)
class _Ends:
    """Labels at a convolution: what enters, and the weight's dimension of inputs and of outputs."""

    entering: Tensor | None
    inputs: Tensor | None
    outputs: Tensor | None


def convolution(site: Site) -> list[Layers]:
    """Convolution, plain, grouped, depthwise or transposed, in any number of dimensions."""
    source, weight, bias = site.step.args[:3]
    transposed, groups = bool(site.step.args[6]), int(site.step.args[8])
    out_dim, in_dim = (1, 0) if transposed else (0, 1)
    slid = (layer for layer in site.of(source) if varying(layer) and 1 not in varying(layer))
    site.freeze(slid, "slides over them")
    site.labels.hide([layer for layer in site.of(weight) if not {0, 1} & set(varying(layer))])
    ends = _Ends(columns(site, source, 1), columns(site, weight, in_dim), columns(site, weight, out_dim))
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
    return [[along(leaving, 1, site.shape())] if leaving is not None else []]


def _contract(site: Site, ends: _Ends) -> None:
    if ends.entering is not None and ends.inputs is not None:
        site.labels.unite(ends.entering, ends.inputs)
    elif ends.inputs is not None:
        site.freeze([ends.inputs], TAKES_FIXED)
    elif ends.entering is not None and ends.entering.numel() > 1:
        site.freeze([ends.entering], FIXED)


def _grouped(site: Site, ends: _Ends, groups: int) -> Tensor | None:
    """Group convolution: all parts stay equal, so either whole parts go or the same place in each part."""
    labels, weight = site.labels, site.step.args[1]
    site.role(weight, 0, makes=True)
    if ends.outputs is None or ends.entering is None:
        site.freeze([ends.entering, ends.inputs], FIXED)
        site.freeze([ends.outputs], TAKES_FIXED)
        return ends.outputs
    parts, fed = ends.outputs.reshape(groups, -1), ends.entering.reshape(groups, -1)
    if groups >= fed.shape[1]:
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
    if groups >= fed.shape[1]:
        site.role(weight, 0, makes=True)
        labels.hide([ends.outputs] if ends.outputs is not None else [])
        return labels.tie(fed, [1])[:, :1].expand(groups, inside).reshape(-1)
    site.role(weight, 1, makes=True)
    labels.tie(fed, [0])
    return ends.outputs.repeat(groups) if ends.outputs is not None else None


def matmul(site: Site) -> list[Layers]:
    """Matrix products (mm, bmm, addmm, baddbmm): unite along the contracted dimension, keep the others.

    Where labels also vary along a batch dimension (attention's heads), the whole of each batch entry is tied.
    """
    arguments = site.step.args
    added = arguments[0] if site.step.name in {"addmm", "baddbmm"} else None
    left, right = arguments[1:3] if added is not None else arguments[:2]
    rank, shape = len(site.value(left).shape), site.shape()
    output: Layers = []
    ones = _summed(site, left, (rank - 1, rank - 2), output)
    others = [layer.transpose(-1, -2) for layer in _summed(site, right, (rank - 2, rank - 1), output)]
    for one in ones:
        for other in others:
            site.labels.unite(one, other)
    if not (ones and others):
        site.freeze(ones + others, FIXED)
    _same_batch(site, left, right, rank - 2)
    if added is not None:
        for layer in site.of(added):
            if varying(layer):
                join(site, output, layer.expand(shape))
        _freeze_alone(site, output, added, shape)
    return [[layer for layer in output if varying(layer)]]


def _summed(site: Site, argument: Ref, dims: tuple[int, int], output: Layers) -> Layers:
    """An operand's labels along the dimension that is summed over; those of the others join the output's."""
    inner, outer = dims
    site.role(argument, inner, makes=False)
    site.role(argument, outer, makes=True)
    tied: Layers = []
    for layer in site.of(argument):
        if inner not in varying(layer):
            join(site, output, layer.narrow(inner, 0, 1).expand(site.shape()))
            continue
        layer = site.labels.tie(layer, [outer]).narrow(outer, 0, 1)
        if any(d < min(dims) for d in varying(layer)):
            layer = site.labels.tie(layer, [inner])
            join(site, output, layer.narrow(inner, 0, 1).expand(site.shape()))
        tied.append(layer)
    return tied


def _same_batch(site: Site, left: Ref, right: Ref, batch: int) -> None:
    """Labels along a batch dimension need labels in the other operand too."""
    for one, other in ((left, right), (right, left)):
        known = {d for layer in site.of(other) for d in varying(layer)}
        site.freeze((layer for layer in site.of(one) if {d for d in varying(layer) if d < batch} - known), FIXED)


def _freeze_alone(site: Site, output: Layers, added: Ref, shape: tuple[int, ...]) -> None:
    """What a bias of fixed size is added to cannot go."""
    own = site.value(added).shape
    full = [1] * (len(shape) - len(own)) + list(own)
    known = {d + len(shape) - layer.dim() for layer in site.of(added) for d in varying(layer)}
    for layer in output:
        dims = {d for d in varying(layer) if full[d] > 1}
        if dims and not dims & known:
            site.freeze([layer], "adds a tensor whose size is fixed")


def attention(site: Site) -> list[Layers]:
    """Scaled dot-product attention: a whole head goes or stays, so that the scale keeps its meaning."""
    query, key, value = site.step.args[:3]
    mask = site.argument(3, "attn_mask")
    labels = site.labels
    heads: list[Tensor] = []
    fixed = False
    for argument in (query, key, value):
        for layer in site.of(argument):
            if 1 in varying(layer):
                tied = labels.tie(layer, [d for d in varying(layer) if d != 1])
                heads.append(tied.narrow(0, 0, 1).narrow(2, 0, 1).narrow(3, 0, 1))
            elif 3 in varying(layer):
                site.freeze([layer], "scales by the width of a single head, which must stay")
            else:
                site.freeze([layer], "looks across them")
        fixed |= not any(1 in varying(layer) for layer in site.of(argument))
    if isinstance(mask, Ref) and len(site.value(mask).shape) == 4:
        along_heads = [layer for layer in site.of(mask) if 1 in varying(layer)]
        fixed |= site.value(mask).shape[1] > 1 and not along_heads
        heads.extend(labels.only_along(layer, 1).reshape(1, -1, 1, 1) for layer in along_heads)
        site.freeze((layer for layer in site.of(mask) if set(varying(layer)) - {1}), "looks across them")
    for head in heads[1:]:
        labels.unite(heads[0], head)
    if fixed:
        site.freeze(heads, FIXED)
    return site.alone([layer.narrow(2, 0, 1).expand(site.shape()) for layer in site.of(value)
                       if layer.shape[-1] == site.shape()[-1]])  # fmt: skip
