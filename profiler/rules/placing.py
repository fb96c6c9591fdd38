"""Reading from, and writing to, places that index tensors, masks or views say.

A constant index moves labels like any other move. What the network itself computes may choose samples, pixels or
tokens, but not channels. Writing unites what is written with what was there: both stand at one place.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from profiler.labels import Layers, broadcast, compact, varying
from profiler.rules.moving import along_last, move
from profiler.rules.site import Operand, Site, combine, refs_in, refuse
from profiler.trace import Ref

CHOOSES = "chooses channels by what the network computes"


def index(site: Site) -> list[Layers]:
    """`x[…]` and `index_select`: a constant index moves labels, a computed one must not choose among them."""
    source, places = site.step.args[0], site.step.args[1:]
    by_tensors = site.step.name in {"index", "_unsafe_index"}
    dims = [d for d, item in enumerate(places[0]) if item is not None] if by_tensors else [int(places[0])]
    tensors = refs_in(places)
    chosen = {ref.index: site.contents(ref) for ref in tensors}
    if all(contents is not None for contents in chosen.values()):
        return move(site, {number: contents for number, contents in chosen.items() if contents is not None})
    left = _not_along(site, site.of(source), dims)
    if any(site.value(ref).dtype == torch.bool for ref in tensors):
        return [_last_kept(site, left)]
    blank = {ref.index: torch.zeros(site.value(ref).shape, dtype=torch.int64) for ref in tensors}
    return move(site, blank, {source.index: left})


def _not_along(site: Site, layers: Layers, dims: Sequence[int]) -> Layers:
    """The layers that do not vary along these dimensions; among the others the network chooses, and they stay."""
    along = [layer for layer in layers if any(d % layer.dim() in varying(layer) for d in dims)]
    site.freeze(along, CHOOSES)
    return [layer for layer in layers if all(layer is not other for other in along)]


def _last_kept(site: Site, layers: Layers) -> Layers:
    """Carry layers over a choice by a mask: only a last dimension of the same length is followed."""
    kept, shape = [], site.shape()
    for layer in layers:
        if varying(layer) == (layer.dim() - 1,) and shape and shape[-1] == layer.shape[-1]:
            kept.append(along_last(layer, shape))
        elif varying(layer):
            site.freeze([layer], "moves them by what the network computes")
    return kept


def embedding(site: Site) -> list[Layers]:
    """Table look-up: columns are channels, rows are fixed."""
    weight = site.step.args[0]
    shape = site.shape()
    site.labels.hide([layer for layer in site.of(weight) if varying(layer) == (0,)])
    site.role(weight, 1, makes=True)
    return site.alone([along_last(layer, shape) for layer in site.of(weight) if varying(layer) == (1,)])


def write(site: Site) -> list[Layers]:
    """Copying into an existing tensor, or a part of it: what is written goes with what stood there."""
    target, source = site.step.args[:2]
    return [_written(site, site.of(target), _operand(site, source, site.shape()), site.shape())]


def _operand(site: Site, argument: object, shape: Sequence[int]) -> Operand:
    """A tensor's shape and layers, with leading dimensions of length 1; nothing for a number."""
    if not isinstance(argument, Ref):
        return [1] * len(shape), []
    own = [1] * (len(shape) - len(site.value(argument).shape)) + list(site.value(argument).shape)
    return own, [layer.reshape(own) for layer in site.of(argument)]


def _written(site: Site, target: Layers, source: Operand, shape: Sequence[int]) -> Layers:
    """Unite what is written with the labels of the places; where these have none, what is written must stay."""
    for layer in source[1]:
        place = next((own for own in target if set(varying(own)) & set(varying(layer))), None)
        if place is None:
            continue
        there, given = broadcast(compact(place), compact(layer))
        if bool((there == 0).any()):
            site.freeze([torch.where(there == 0, given, 0)], "writes them to a place that stays")
    return combine(site, [(shape, target), source], shape)


def write_part(site: Site) -> list[Layers]:
    """`slice_scatter` and `select_scatter`: a copy of a tensor in which a part is another's."""
    base, part = site.step.args[:2]
    rank = len(site.shape())
    by_number = site.step.name == "select_scatter"
    dimension = int(site.argument(2, "dim", 0)) % rank
    own, layers = site.value(part).shape, site.of(part)
    if by_number:
        number = int(site.argument(3, "index")) % site.shape()[dimension]
        places = slice(number, number + 1)
        layers = [layer.unsqueeze(dimension) for layer in layers]
        own = (*own[:dimension], 1, *own[dimension:])
        site.freeze((layer.narrow(dimension, number, 1) for layer in site.of(base)
                     if dimension in varying(layer)), "picks it by its number")  # fmt: skip
    else:
        places = slice(site.argument(3, "start"), site.argument(4, "end"), site.argument(5, "step", 1))
    index = tuple(places if d == dimension else slice(None) for d in range(rank))
    _written(site, [layer[index] for layer in site.of(base)], (own, layers), own)
    return [site.of(base)]


def index_put(site: Site) -> list[Layers]:
    """`x[…] = y` with tensors as indices: what is written goes with what stands at these places."""
    target, places, source = site.step.args[:3]
    tensors = refs_in(places)
    known = [site.contents(ref) for ref in tensors]
    dims = [d for d, item in enumerate(places) if item is not None]
    layers = site.of(target)
    if any(contents is None for contents in known):
        layers = _not_along(site, layers, dims)
        if any(site.value(ref).dtype == torch.bool for ref in tensors):
            return _index_put_by_mask(site, layers, source)
        known = [torch.zeros(site.value(ref).shape, dtype=torch.int64) for ref in tensors]
    contents = iter(known)
    chosen = [None if item is None else next(contents) for item in places]
    whole = tuple(slice(None) if item is None else item for item in chosen)
    shape = torch.zeros((), dtype=torch.int64).expand(site.shape())[whole].shape
    read = [_read(layer, chosen, shape) for layer in layers]
    _written(site, read, _operand(site, source, shape), shape)
    return [layers]


def _read(layer: Tensor, chosen: Sequence[Tensor | None], shape: Sequence[int]) -> Tensor:
    """What stands at chosen places of a layer; only where it varies does it matter which."""
    dims = varying(layer)
    if any(item is not None and item.dtype == torch.bool for item in chosen):
        return layer[tuple(slice(None) if item is None else item for item in chosen)]
    places = [
        slice(None) if item is None else item if d in dims else torch.zeros_like(item) for d, item in enumerate(chosen)
    ]
    return compact(layer)[tuple(places)].expand(list(shape))


def _index_put_by_mask(site: Site, target: Layers, source: Ref) -> list[Layers]:
    """How much is written depends on the data: only a last dimension is followed."""
    if not site.of(source) and not any(n > 1 for n in site.value(source).shape):
        return [target]
    last = site.shape()[-1]
    read = [compact(layer).reshape(-1) for layer in target if varying(layer) == (len(site.shape()) - 1,)]
    other = [layer for layer in target if varying(layer) and varying(layer) != (len(site.shape()) - 1,)]
    site.freeze(other, "writes to places that the network computes")
    own = site.value(source).shape
    given = [compact(layer).reshape(-1) for layer in site.of(source) if varying(layer) == (layer.dim() - 1,)]
    _written(site, read, ([own[-1] if own else 1], given), [last])
    return [[layer for layer in target if all(layer is not one for one in other)]]


def gather(site: Site) -> list[Layers]:
    """`gather`: along the other dimensions a tensor and its index are the same places."""
    source, dimension, places = site.step.args[0], int(site.step.args[1]), site.step.args[2]
    rank = len(site.shape())
    dimension %= max(rank, 1)
    shape, own = site.shape(), _not_along(site, site.of(source), [dimension])
    around = [1 if d == dimension else n for d, n in enumerate(site.value(source).shape)]
    if any(n not in (1, length) for n, length in zip(around, shape, strict=True)):
        return refuse(site, "reads a part of them")
    layers = [compact(layer).expand(around) for layer in own]
    return [combine(site, [(around, layers), _operand(site, places, shape)], shape)]


def scatter(site: Site) -> list[Layers]:
    """`scatter`, `scatter_add` and `scatter_reduce`: the same for writing."""
    target, dimension, places, source = site.step.args[0], int(site.step.args[1]), *site.step.args[2:4]
    shape = site.value(places).shape
    dimension %= max(len(shape), 1)
    across = [layer for ref in (target, places, source) for layer in site.of(ref) if dimension in varying(layer)]
    site.freeze(across, CHOOSES)
    around = [1 if d == dimension else n for d, n in enumerate(shape)]
    operands: list[Operand] = []
    for ref in refs_in((target, places, source)):
        layers = [layer for layer in site.of(ref) if dimension not in varying(layer)]
        own = [1 if d == dimension else n for d, n in enumerate(site.value(ref).shape)]
        operands.append((own, [compact(layer).expand(own) for layer in layers]))
    if any(list(own) != around for own, _ in operands):
        site.freeze((layer for _, layers in operands for layer in layers), "writes to a part of them")
        return [[layer for layer in site.of(target) if dimension not in varying(layer)]]
    combine(site, operands, around)
    return [[layer for layer in site.of(target) if dimension not in varying(layer)]]


def index_add(site: Site) -> list[Layers]:
    """`index_add`, `index_copy`, `index_fill`: writing along one dimension at places that an index tensor says."""
    target, dimension, places, source = site.step.args[0], int(site.step.args[1]), *site.step.args[2:4]
    dimension %= max(len(site.shape()), 1)
    known, layers = site.contents(places), site.of(target)
    if known is None:
        layers = _not_along(site, layers, [dimension])
        known = torch.zeros(site.value(places).shape, dtype=torch.int64)
    read = [layer.index_select(dimension, known.reshape(-1)) for layer in layers]
    shape = [known.numel() if d == dimension else n for d, n in enumerate(site.shape())]
    _written(site, read, _operand(site, source, shape), shape)
    return [layers]


def order(site: Site) -> list[Layers]:
    """Sorting and the like: not along channels, whose numbers it would change; along others each channel by itself."""
    source = site.step.args[0]
    rank = len(site.value(source).shape)
    position = 2 if site.step.name in {"topk", "kthvalue"} else 1
    default = -1 if site.step.name in {"sort", "argsort", "topk", "kthvalue", "mode"} else None
    given = site.argument(position, "dim", default)
    given = default if isinstance(given, bool) else given
    dims = set(range(rank)) if given is None else {int(given) % rank}
    ordered = [layer for layer in site.of(source) if dims & set(varying(layer))]
    site.freeze(ordered, "orders them by what the network computes")
    left = [layer for layer in site.of(source) if varying(layer) and not dims & set(varying(layer))]
    return [[resized(layer, dims, site.shape(number)) for layer in left] for number in range(len(site.step.outputs))]


def resized(layer: Tensor, dims: set[int], shape: Sequence[int]) -> Tensor:
    """A layer, constant along these dimensions, for an output where they have another length or are gone."""
    small = compact(layer)
    if len(shape) < small.dim():
        small = small.reshape([n for d, n in enumerate(small.shape) if d not in dims])
    return small.expand(list(shape))
