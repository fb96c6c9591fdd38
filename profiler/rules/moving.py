"""Operations that only move elements: the same operation, run on the labels, says where channels go."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from profiler.labels import Layers, along, compact, compress, varying
from profiler.rules.site import Site, is_ref, meet, refs_in, refuse
from profiler.trace import Ref, Step

MOVES = frozenset(
    "view _unsafe_view reshape permute transpose t expand chunk slice select unbind "
    "unsqueeze squeeze clone contiguous alias detach detach_ _to_copy to lift lift_fresh flip roll pixel_shuffle "
    "pixel_unshuffle repeat unfold im2col narrow movedim diagonal rot90 tril triu "
    "reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d "
    "upsample_nearest1d upsample_nearest2d upsample_nearest3d swapaxes flatten squeeze_ "
    "unsqueeze_ transpose_ t_ repeat_interleave".split()
)
CREATIONS = frozenset(
    "empty zeros ones full arange linspace rand randn randint new_zeros new_ones new_full new_empty scalar_tensor eye "
    "randperm empty_strided new_empty_strided _local_scalar_dense item shape size sym_size is_same_size "
    "tril_indices triu_indices".split()
)
SAME = frozenset("clone contiguous alias detach _to_copy lift_fresh to detach_ lift".split())
"""Operations that change no element's place."""

KEYWORDS = frozenset({"dim", "dims", "start", "end", "step", "accumulate", "sparse_grad", "implicit", "output_size"})
"""Keywords of moving operations that say where elements go; the others (type, memory) do not concern labels."""

Chosen = dict[int, Tensor]
"""Contents that stand for values which the trace did not keep."""


def move(site: Site, chosen: Chosen | None = None) -> list[Layers]:
    """Run the step's operation on each layer of labels."""
    step = site.step
    depth = max((len(site.of(ref)) for ref in site.refs), default=0)
    outputs: list[Layers] = [[] for _ in step.outputs]
    for number in range(depth):

        def substitute(leaf: Any, number: int = number) -> Any:
            if not isinstance(leaf, Ref):
                return leaf
            value, layers = site.value(leaf), site.of(leaf)
            if number < len(layers):
                return layers[number]
            if value.data is not None and not layers:
                return value.data
            if chosen and leaf.index in chosen:
                return chosen[leaf.index]
            return torch.zeros((), dtype=torch.int64).expand(value.shape)

        args, kwargs = tree_map(substitute, (step.args, dict(step.kwargs)), is_leaf=is_ref)
        moved = _run(step, args, {key: item for key, item in kwargs.items() if key in KEYWORDS})
        for position, (index, layer) in enumerate(zip(step.outputs, moved, strict=False)):
            if index is not None and isinstance(layer, Tensor):
                layer = compress(layer.to(torch.int64).reshape(site.trace.values[index].shape))
                if varying(layer) or (layer.numel() and int(compact(layer).reshape(-1)[0])):
                    outputs[position].append(layer)
    return outputs


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
    """Splitting: into equal parts (chunk) the parts stay equal only if the same place goes in each."""
    outputs = move(site)
    dimension = int(site.argument(2, "dim", 0))
    sizes = {site.shape(position) for position in range(len(outputs))}
    if len(outputs) > 1 and len(sizes) == 1:
        for layer in site.of(site.step.args[0]):
            if dimension % layer.dim() in varying(layer):
                first, *rest = layer.chunk(len(outputs), dimension)
                for part in rest:
                    site.labels.unite(first, part)
    return outputs


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
    """Padding with a constant: what is padded carries label 0."""
    amounts = site.argument(1, "pad")
    return [[compress(torch.constant_pad_nd(layer, amounts, 0)) for layer in site.of(site.step.args[0])]]


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

    output: Layers = []
    for wanted in dict.fromkeys(kind(layer) for layers in joined for layer in layers):
        parts = [next((layer for layer in layers if kind(layer) == wanted), None) for layers in joined]
        if wanted != (dimension,):
            output.extend(_beside(site, parts, dimension))
            continue
        filled = [
            part if part is not None else torch.zeros((), dtype=torch.int64).expand(size)
            for part, size in zip(parts, sizes, strict=True)
        ]
        output.append(compress(torch.cat(filled, dim=dimension)))
    return [output]


def _beside(site: Site, parts: list[Tensor | None], dimension: int) -> Layers:
    """Labels of joined tensors along another dimension than the joined one: all are the first one's."""
    known = [part for part in parts if part is not None]
    first = known[0].narrow(dimension, 0, 1)
    for part in known:
        site.labels.unite(part, first.expand(part.shape))
        first = torch.where(first == 0, part.narrow(dimension, 0, 1), first) if bool((first == 0).any()) else first
    if len(known) < len(parts):
        site.freeze(known, "joins them with a tensor whose size is fixed")
        return []
    return [first.expand(site.shape())]


def index(site: Site) -> list[Layers]:
    """Indexing with tensors: a constant index moves labels, one that the network computes must not touch channels."""
    source, places = site.step.args[0], site.step.args[1:]
    by_tensors = site.step.name == "index"
    dims = [d for d, item in enumerate(places[0]) if item is not None] if by_tensors else [places[0]]
    computed = [ref for ref in refs_in(places) if site.value(ref).from_input or site.value(ref).data is None]
    if not computed:
        return move(site)
    if any(d % layer.dim() in varying(layer) for layer in site.of(source) for d in dims):
        return refuse(site, "chooses channels by what the network computes")
    if any(site.value(ref).dtype == torch.bool for ref in computed):
        return [_last_kept(site, site.of(source))]
    return move(site, {ref.index: torch.zeros(site.value(ref).shape, dtype=torch.int64) for ref in computed})


def _last_kept(site: Site, layers: Layers) -> Layers:
    """Carry layers over a choice by a mask: only a last dimension of the same length is followed."""
    kept, shape = [], site.shape()
    for layer in layers:
        if varying(layer) == (layer.dim() - 1,) and shape and shape[-1] == layer.shape[-1]:
            kept.append(along(compact(layer).reshape(-1), len(shape) - 1, shape))
        elif varying(layer):
            site.freeze([layer], "moves them by what the network computes")
    return kept


def embedding(site: Site) -> list[Layers]:
    """Table look-up: columns are channels, rows are fixed."""
    weight = site.step.args[0]
    shape = site.shape()
    site.labels.hide([layer for layer in site.of(weight) if varying(layer) == (0,)])
    site.role(weight, 1, makes=True)
    rows = [compact(layer).reshape(-1) for layer in site.of(weight) if varying(layer) == (1,)]
    return [[along(row, len(shape) - 1, shape) for row in rows]]


def write(site: Site) -> list[Layers]:
    """Copying into an existing tensor: followed where the whole tensor is written."""
    target, source = site.step.args[:2]
    storage = site.value(target).storage
    first = next(value for value in site.trace.values if value.storage == storage)
    if first.shape != site.value(target).shape and (site.of(source) or site.of(target)):
        return refuse(site, "writes them into a part of another tensor")
    return [meet(site, [source], site.shape())]
