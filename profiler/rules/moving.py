"""Operations that only move elements: the same operation, run on the labels, says where channels go."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from profiler.labels import Layers, along, compact, compress, varying
from profiler.rules.site import Site, is_ref, refuse
from profiler.trace import Ref, Step

MOVES = frozenset(
    "view _unsafe_view reshape permute transpose t chunk slice unsqueeze squeeze clone contiguous alias detach detach_ "
    "_to_copy to lift lift_fresh flip roll pixel_shuffle pixel_unshuffle unfold narrow movedim diagonal rot90 "
    "reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d "
    "swapaxes flatten squeeze_ unsqueeze_ transpose_ t_ swapaxes_ repeat_interleave resolve_conj resolve_neg "
    "split_copy view_copy permute_copy slice_copy unsqueeze_copy".split()
)
SPLITS = frozenset("split split_with_sizes unsafe_split unsafe_split_with_sizes unsafe_chunk".split())
SAME = frozenset("clone contiguous alias detach _to_copy lift_fresh to detach_ lift resolve_conj resolve_neg".split())
"""Operations that change no element's place."""

KEYWORDS = frozenset({"dim", "dims", "start", "end", "step", "accumulate", "sparse_grad", "implicit", "output_size"})
"""Keywords of moving operations that say where elements go; the others (type, memory) do not concern labels."""

Chosen = dict[int, Tensor]
"""Contents that stand for integer and boolean tensors, which choose places and have no labels of their own."""


def move(site: Site, chosen: Chosen | None = None, instead: Mapping[int, Layers] | None = None) -> list[Layers]:
    """Run the step's operation on each layer of labels.

    Args:
        site: the step.
        chosen: contents of the tensors that choose places.
        instead: layers that take the place of a value's own.
    """
    step = site.step
    known = {ref.index: site.of(ref) for ref in site.refs if ref.index not in (chosen or {})} | dict(instead or {})
    depth = max(map(len, known.values()), default=0)
    outputs: list[Layers] = [[] for _ in step.outputs]
    for number in range(depth):

        def substitute(leaf: Any, number: int = number) -> Any:
            if not isinstance(leaf, Ref):
                return leaf
            if chosen and leaf.index in chosen:
                return chosen[leaf.index]
            layers = known[leaf.index]
            if number < len(layers):
                return layers[number]
            return torch.zeros((), dtype=torch.int64).expand(site.value(leaf).shape)

        args, kwargs = tree_map(substitute, (step.args, dict(step.kwargs)), is_leaf=is_ref)
        moved = _run(step, args, {key: item for key, item in kwargs.items() if key in KEYWORDS})
        for position, (index, layer) in enumerate(zip(step.outputs, moved, strict=False)):
            if index is not None and isinstance(layer, Tensor):
                layer = compress(layer.to(torch.int64).reshape(site.trace.values[index].shape))
                if varying(layer):
                    outputs[position].append(layer)
                elif layer.numel() and int(compact(layer).reshape(-1)[0]):
                    site.freeze([layer], "leaves a single one of them")
                    site.labels.set_aside([layer])
    return [_without_created(site, layers) for layers in outputs]


def _without_created(site: Site, layers: Layers) -> Layers:
    """One layer a dimension where created tensors are concerned: channels count before these, then the longest does.

    (Heads that were repeated and flattened: what goes is a head with all its repetitions.)
    """
    if len(layers) < 2:
        return layers
    created = [layer for layer in layers if site.labels.is_created(layer)]
    kept = [layer for layer in layers if all(layer is not other for other in created)]
    taken = {d for layer in kept for d in varying(layer)}
    for layer in sorted(created, key=lambda layer: -compact(layer).numel()):
        if not taken & set(varying(layer)):
            kept.append(layer)
            taken.update(varying(layer))
    return kept


def _run(step: Step, args: Any, kwargs: Any) -> list[Any]:
    if step.name in {"view", "_unsafe_view", "reshape"}:
        return [args[0].reshape(args[1])]
    if step.name in SAME:
        return [args[0]]
    try:
        result = step.operation(*args, **kwargs)
    except (RuntimeError, NotImplementedError):

        def as_double(leaf: Any) -> Any:
            return leaf.double() if isinstance(leaf, Tensor) and leaf.dtype == torch.int64 else leaf

        result = step.operation(*tree_map(as_double, args), **kwargs)
    return list(result) if isinstance(result, tuple | list) else [result]


def split(site: Site) -> list[Layers]:
    """Splitting: into equal parts (chunk) the parts stay equal only if the same place goes in each.

    Where the code lists the sizes, these follow what is left of each part.
    """
    outputs = move(site)
    dimension = int(site.argument(2, "dim", 0))
    sizes = {site.shape(position) for position in range(len(outputs))}
    if len(outputs) > 1 and len(sizes) == 1 and "with_sizes" not in site.step.name:
        for layer in site.of(site.step.args[0]):
            if dimension % layer.dim() in varying(layer):
                first, *rest = layer.chunk(len(outputs), dimension)
                for part in rest:
                    site.labels.unite(first, part)
    return outputs


def pick(site: Site) -> list[Layers]:
    """`select` and `unbind` count positions: what is picked by its number stays.

    Where a layer varies along other dimensions too (query, key and value in one), the same place goes in each.
    """
    by_number = site.step.name == "select"
    dimension = int(site.argument(1, "dim", 0))
    for layer in site.of(site.step.args[0]):
        own = dimension % layer.dim()
        if own not in varying(layer):
            continue
        if varying(layer) != (own,):
            site.labels.tie(layer, [own])
        elif by_number:
            site.freeze([layer.select(own, int(site.step.args[2]))], "picks it by its number")
            site.labels.set_aside([layer.select(own, int(site.step.args[2]))])
        else:
            site.freeze([layer], "takes them one by one")
            site.labels.set_aside([layer])
    return move(site)


def channel_shuffle(site: Site) -> list[Layers]:
    """Channel shuffle as one operation: its number of parts stays, so the same place in each part goes."""
    for layer in site.of(site.step.args[0]):
        if 1 in varying(layer):
            site.labels.tie(site.labels.only_along(layer, 1).reshape(int(site.step.args[1]), -1), [0])
    return move(site)


def restride(site: Site) -> list[Layers]:
    """`as_strided` to the same shape only changes the memory's order."""
    if site.shape() == site.value(site.step.args[0]).shape:
        return [site.of(site.step.args[0])]
    return refuse(site)


def constant_pad(site: Site) -> list[Layers]:
    """Padding with a constant: along channels, what is padded is like a created tensor; along pixels, its channel's."""
    amounts, shape = site.argument(1, "pad"), site.shape()
    before = site.value(site.step.args[0]).shape
    padded: Layers = []
    for layer in site.of(site.step.args[0]):
        own = [0 if layer.dim() - 1 - k // 2 not in varying(layer) else n for k, n in enumerate(amounts)]
        layer = torch.constant_pad_nd(compact(layer), own, 0).expand(shape)
        for dimension in varying(layer) if len(varying(layer)) == 1 and any(own) else ():
            first = own[2 * (layer.dim() - 1 - dimension)]
            added = site.labels.created(shape[dimension])
            inside = torch.arange(shape[dimension]).sub(first)
            added[(inside >= 0) & (inside < before[dimension])] = 0
            layer = torch.maximum(layer, along(added, dimension, shape)) if (added > 0).any() else layer
        padded.append(compress(layer))
    return [padded]


def concatenate(site: Site) -> list[Layers]:
    """Joining tensors: along the joined dimension channels stand side by side, along the others they are the same."""
    tensors = site.argument(0, "tensors")
    rank = len(site.shape())
    dimension = site.argument(1, "dim", 0) % rank
    if site.step.name == "stack":
        joined = [[layer.unsqueeze(dimension) for layer in site.of(ref)] for ref in tensors]
        sizes = [[*site.value(ref).shape[:dimension], 1, *site.value(ref).shape[dimension:]] for ref in tensors]
    else:
        tensors = [ref for ref in tensors if len(site.value(ref).shape) == rank]
        joined = [site.of(ref) for ref in tensors]
        sizes = [list(site.value(ref).shape) for ref in tensors]

    def kind(layer: Tensor) -> tuple[int, ...]:
        return tuple(d for d in varying(layer) if d != dimension) or (dimension,)

    coarse = {kind(layer) for layers in joined for layer in layers} - {(dimension,)}
    joined = [[_coarsened(site, layer, kind(layer), coarse) for layer in layers] for layers in joined]
    output: Layers = []
    for wanted in dict.fromkeys(kind(layer) for layers in joined for layer in layers):
        parts = [next((layer for layer in layers if kind(layer) == wanted), None) for layers in joined]
        if wanted != (dimension,) and not all(part is not None and dimension in varying(part) for part in parts):
            output.extend(_beside(site, parts, dimension))
            continue
        filled = [
            part if part is not None else torch.zeros((), dtype=torch.int64).expand(size)
            for part, size in zip(parts, sizes, strict=True)
        ]
        output.append(compress(torch.cat(filled, dim=dimension)))
    return [output]


def _coarsened(site: Site, layer: Tensor, kind: tuple[int, ...], kinds: set[tuple[int, ...]]) -> Tensor:
    """A layer that varies along more dimensions than what it is joined with (heads and their insides beside heads).

    It is tied along those that it has more.
    """
    common = min((other for other in kinds if set(other) < set(kind)), key=len, default=None)
    if common is None:
        return layer
    more = [d for d in kind if d not in common]
    layer = site.labels.tie(layer, more)
    for dimension in more:
        layer = layer.narrow(dimension, 0, 1).expand(layer.shape)
    return layer


def _beside(site: Site, parts: list[Tensor | None], dimension: int) -> Layers:
    """Labels of joined tensors along another dimension than the joined one: all are the first one's."""
    known = [part for part in parts if part is not None]
    first = known[0].narrow(dimension, 0, 1)
    for part in known:
        site.labels.unite(part, first.expand(part.shape))
        first = torch.where(first == 0, part.narrow(dimension, 0, 1), first) if bool((first == 0).any()) else first
    if len(known) < len(parts):
        site.freeze(known, "joins them with a tensor whose size is fixed")
        site.labels.set_aside(known)
        return []
    return [first.expand(site.shape())]


def along_last(layer: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A layer that varies along its last dimension, laid along the last one of another shape."""
    return along(compact(layer).reshape(-1), len(shape) - 1, shape)
