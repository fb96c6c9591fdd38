"""Matrix products and attention: what is summed over unites on both sides, all other dimensions keep their labels.

Where labels also vary along a batch dimension (attention's heads), a head goes as a whole, so that its scale 1/√d and
what is computed for each of its places keep their meaning.
"""

from collections.abc import Sequence

from torch import Tensor

from profiler.labels import Layers, compact, varying
from profiler.rules.contracting import FIXED
from profiler.rules.norms import across
from profiler.rules.site import Operand, Site, choose, combine
from profiler.trace import Ref

HEAD = "contracts them inside each head, whose width must stay"
WITH_ADDED = frozenset("addmm baddbmm addmv addmm_ baddbmm_ addmv_".split())
PRODUCTS = frozenset("mm bmm mv".split()) | WITH_ADDED


def matmul(site: Site) -> list[Layers]:
    """Matrix products (mm, bmm, mv, and those that add): unite along the contracted dimension, keep the others."""
    arguments = site.step.args
    left, right = arguments[1:3] if site.step.name in WITH_ADDED else arguments[:2]
    shape, (sizes, layers) = site.shape(), _operand(site, right)
    _roles(site, left, right)
    if len(sizes) == 1:
        shape, sizes, layers = (*shape, 1), (*sizes, 1), [layer.unsqueeze(-1) for layer in layers]
    output = product(site, _operand(site, left), (sizes, layers), shape)
    if len(shape) > len(site.shape()):
        output = [layer.squeeze(-1) for layer in output]
    if site.step.name in WITH_ADDED:
        own, layers = _operand(site, arguments[0])
        sizes = [1] * (len(site.shape()) - len(own)) + list(own)
        added = (sizes, [layer.reshape(sizes) for layer in layers])
        output = combine(site, [(site.shape(), output), added], site.shape())
    return [output]


def _roles(site: Site, left: Ref, right: Ref) -> None:
    """Which dimensions of weights make channels, and which take them in.

    A parameter of which each entry of the batch reads another part (a table of relative positions) does neither.
    """
    rank = len(site.value(right).shape)
    batched = site.step.name in {"bmm", "baddbmm"}
    for argument, inner, outer in ((left, -1, -2), (right, max(-2, -rank), -1)):
        value = site.value(argument)
        own = len(value.shape)
        if argument is left and value.name and not value.trainable:
            continue
        if value.from_input or not batched:
            site.role(argument, own + inner, makes=False)
        if own > 1:
            site.role(argument, own + outer, makes=True, alone=True)
    if rank > 1 and _made_of_parameters(site, left):
        site.role(right, rank - 2, makes=True)


def _made_of_parameters(site: Site, argument: Ref) -> bool:
    """Whether a factor of a weight, and no data, stands on the left."""
    last = len(site.value(argument).shape) - 1
    made = (layer for layer in site.of(argument) if last in varying(layer))
    trained = {key.parameter for layer in made for key in site.labels.keys_of(layer)} & site.labels.trained
    return bool(trained) and not site.value(argument).from_input


def _operand(site: Site, argument: Ref) -> Operand:
    return site.value(argument).shape, site.of(argument)


def product(site: Site, left: Operand, right: Operand, shape: Sequence[int]) -> Layers:
    """The layers of `left @ right`, `[…, n, k]` times `[…, k, m]`."""
    rank = len(shape)
    one, ones = _summed(site, left, (rank - 1, rank - 2))
    other, others = _summed(site, right, (rank - 2, rank - 1))
    if one is not None and other is not None:
        heads = [bool(set(varying(layer)) & set(range(rank - 2))) for layer in (one, other)]
        if all(heads) or not any(heads):
            site.labels.unite(one, other.transpose(-1, -2))
        else:
            kept = other if heads[0] else one
            site.freeze([kept], HEAD)
            site.labels.set_aside([kept])
    else:
        alone = one if one is not None else other
        if alone is not None and set(varying(alone)) & {rank - 2, rank - 1}:
            site.freeze([alone], FIXED)
            site.labels.set_aside([alone])
    outer = [([*sizes[:-2], n, m], layers) for sizes, layers, n, m in (
        (left[0], ones, shape[-2], 1), (right[0], others, 1, shape[-1])
    )]  # fmt: skip
    return combine(site, outer, shape, settled=True)


def _summed(site: Site, operand: Operand, dims: tuple[int, int]) -> tuple[Tensor | None, Layers]:
    """An operand's layer along the dimension that is summed over, and its layers along all others.

    A layer that varies along a batch dimension too stands among both: it is tied within each entry of the batch.
    """
    inner, outer = dims
    chosen = choose(site, [layer for layer in operand[1] if inner in varying(layer)], inner)
    left = [layer.narrow(inner, 0, 1) for layer in operand[1] if inner not in varying(layer) and varying(layer)]
    if chosen is None:
        return None, left
    chosen = site.labels.tie(chosen, [outer]).narrow(outer, 0, 1)
    if any(d < min(dims) for d in varying(chosen)):
        chosen = site.labels.tie(chosen, [inner])
        left.append(chosen.narrow(inner, 0, 1))
    return chosen, left


def attention(site: Site) -> list[Layers]:
    """Scaled dot-product attention: two products with a softmax between them; its scale is written in the step."""
    query, key, value = (_operand(site, ref) for ref in site.step.args[:3])
    for ref in site.step.args[:2]:
        site.role(ref, len(query[0]) - 1, makes=False)
    mask = site.argument(3, "attn_mask")
    rank = len(query[0])
    if site.step.kwargs.get("enable_gqa"):
        key, value = (_repeated(operand, query[0][-3]) for operand in (key, value))
    turned = ([*key[0][:-2], key[0][-1], key[0][-2]], [layer.transpose(-1, -2) for layer in key[1]])
    shape = [*site.shape()[:-1], key[0][-2]]
    scores = product(site, query, turned, shape)
    if isinstance(mask, Ref):
        own = [1] * (rank - len(site.value(mask).shape)) + list(site.value(mask).shape)
        scores = combine(site, [(shape, scores), (own, [layer.reshape(own) for layer in site.of(mask)])], shape)
    across(site, scores, {rank - 1}, "is taken across them")
    return [product(site, (shape, scores), value, site.shape())]


def _repeated(operand: Operand, heads: int) -> Operand:
    """Each head of keys and values serves several heads of queries."""
    sizes, layers = operand
    times = heads // sizes[-3]
    return [*sizes[:-3], heads, *sizes[-2:]], [
        compact(layer).repeat_interleave(times, -3).expand(*sizes[:-3], heads, *sizes[-2:])
        if layer.dim() - 3 in varying(layer)
        else compact(layer).expand(*sizes[:-3], heads, *sizes[-2:])
        for layer in layers
    ]


def dot(site: Site) -> list[Layers]:
    """A product of two vectors."""
    one, other = (_operand(site, ref) for ref in site.step.args[:2])
    row = ([1, *one[0]], [layer.unsqueeze(0) for layer in one[1]])
    column = ([*other[0], 1], [layer.unsqueeze(1) for layer in other[1]])
    product(site, row, column, (1, 1))
    return [[]]


def distance(site: Site) -> list[Layers]:
    """`cdist`: distances of all pairs of vectors."""
    rank = len(site.shape())
    pair: list[Operand] = []
    for ref in site.step.args[:2]:
        own = site.value(ref).shape
        site.role(ref, len(own) - 1, makes=False)
        site.role(ref, len(own) - 2, makes=True)
        sizes = [1] * (rank - len(own)) + list(own)
        pair.append((sizes, [layer.reshape(sizes) for layer in site.of(ref)]))
        across(site, pair[-1][1], {rank - 1}, "is taken across them")
    one, other = pair
    turned = ([*other[0][:-2], other[0][-1], other[0][-2]], [layer.transpose(-1, -2) for layer in other[1]])
    return [product(site, one, turned, site.shape())]


def trilinear(site: Site) -> list[Layers]:
    """`nn.Bilinear`: three tensors multiplied element by element, summed over some dimensions."""
    summed = {int(d) for d in site.step.args[6]}
    rank = len(site.shape()) + len(summed)
    operands: list[Operand] = []
    full = [1] * rank
    for argument, added in zip(site.step.args[:3], site.step.args[3:6], strict=True):
        places = [d for d in range(rank) if d not in {int(item) for item in added}]
        for own, place in enumerate(places):
            site.role(argument, own, makes=place not in summed)
        sizes = [1] * rank
        for place, length in zip(places, site.value(argument).shape, strict=True):
            sizes[place] = length
            full[place] = max(full[place], length)
        operands.append((sizes, [layer.reshape(sizes) for layer in site.of(argument)]))
    output: Layers = []
    for layer in combine(site, operands, full):
        inside = [d for d in varying(layer) if d in summed]
        if len(inside) < len(varying(layer)):
            left = site.labels.tie(layer, inside)
            small = compact(left)
            output.append(small.reshape([n for d, n in enumerate(small.shape) if d not in summed]).expand(site.shape()))
    return [output]
