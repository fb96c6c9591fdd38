"""How each kind of ATen operation passes labels on: one rule for all that moves data, few for all that computes.

A rule is a function of the site (one step of the trace) that gives the layers of each output. Which operations it takes
stands in `RULES`, a visible tuple; an operation without a rule freezes what it meets, with that reason.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from profiler.labels import Labels, Layers, ParameterDimension, along, compact, compress, varying
from profiler.trace import Ref, Step, Trace, Value

Rule = Callable[["Site"], list[Layers]]


@dataclass
class Site:
    """One step of the trace, with the layers of all values known so far."""

    trace: Trace
    step: Step
    labels: Labels
    layers: dict[int, Layers]

    def value(self, argument: Any) -> Value:
        """The traced value behind an argument."""
        return self.trace.values[argument.index]

    def of(self, argument: Any) -> Layers:
        """The layers of an argument; none for what is no tensor or carries no labels."""
        if not isinstance(argument, Ref):
            return []
        if argument.index not in self.layers:
            value = self.value(argument)
            named = value.name is not None and value.dtype.is_floating_point
            self.layers[argument.index] = self.labels.of_parameter(str(value.name), value.shape) if named else []
        return self.layers[argument.index]

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """An argument by position or keyword."""
        if len(self.step.args) > position:
            return self.step.args[position]
        return self.step.kwargs.get(name, default)

    @property
    def where(self) -> str:
        """The place in words, for reasons."""
        return f"{self.step.name} in {self.step.module or 'the network'}"

    def shape(self, output: int = 0) -> tuple[int, ...]:
        """The shape of an output."""
        index = self.step.outputs[output]
        return self.trace.values[index].shape if index is not None else ()

    def each(self, layers: Layers) -> list[Layers]:
        """The layers for the outputs that have the first one's shape, nothing for the others."""
        shape = self.shape()
        return [
            layers if index is not None and self.trace.values[index].shape == shape else []
            for index in self.step.outputs
        ]

    def role(self, argument: Any, dimension: int, *, makes: bool) -> None:
        """Remember that a weight's dimension makes channels, or takes them in (positions are resolved by labels)."""
        for layer in self.of(argument):
            if varying(layer) == (dimension,):
                first = int(compact(layer).reshape(-1)[0])
                for key, (start, length) in self.labels.runs.items():
                    if start <= first < start + length:
                        (self.labels.produced if makes else self.labels.consumed).add(key)


def meet(site: Site, arguments: Sequence[Any], shape: Sequence[int]) -> Layers:
    """Combine element by element: labels that meet are united; what meets channels that nobody made cannot go."""
    operands = [argument for argument in arguments if isinstance(argument, Ref)]
    combined: Layers = []
    lengths = [len(shape)] * len(operands)
    full = [[1] * (length - len(site.value(o).shape)) + list(site.value(o).shape) for o, length in zip(operands, lengths, strict=True)]
    for position, operand in enumerate(operands):
        for layer in site.of(operand):
            layer = layer.reshape(full[position]) if layer.dim() != len(shape) else layer
            dims = set(varying(layer))
            if not dims:
                continue
            layer = layer.expand(list(shape))
            partner = next((k for k, other in enumerate(combined) if dims & set(varying(other))), None)
            if partner is None:
                combined.append(layer)
            else:
                other = combined[partner]
                site.labels.unite(other, layer)
                small, large = torch.broadcast_tensors(compact(other), compact(layer))
                combined[partner] = torch.where(small == 0, large, small).expand(list(shape))
    for layer in combined:
        for position, operand in enumerate(operands):
            dims = [d for d in varying(layer) if full[position][d] > 1]
            has = any(set(dims) & set(varying(own.reshape(full[position]))) for own in site.of(operand))
            if dims and not has:
                site.labels.freeze([layer], f"{site.where} combines them with a tensor whose size is fixed")
    return combined


def pointwise(site: Site) -> list[Layers]:
    """Element-wise operations and those that make a tensor like another."""
    return site.each(meet(site, tree_leaves((site.step.args, dict(site.step.kwargs)), is_leaf=_is_ref), site.shape()))


def _is_ref(leaf: Any) -> bool:
    return isinstance(leaf, Ref)


def move(site: Site) -> list[Layers]:
    """Operations that only move elements: the same operation, run on the labels."""
    step = site.step
    depth = max((len(site.of(leaf)) for leaf in tree_leaves((step.args, dict(step.kwargs)), is_leaf=_is_ref)), default=0)
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
            return torch.zeros((), dtype=torch.int64).expand(value.shape)

        args, kwargs = tree_map(substitute, (step.args, dict(step.kwargs)), is_leaf=_is_ref)
        moved = _run_moving(step, args, {key: item for key, item in kwargs.items() if key in _KEYWORDS})
        for position, (index, layer) in enumerate(zip(step.outputs, moved, strict=False)):
            if index is not None and isinstance(layer, Tensor):
                layer = compress(layer.to(torch.int64).reshape(site.trace.values[index].shape))
                if varying(layer) or (layer.numel() and int(compact(layer).reshape(-1)[0])):
                    outputs[position].append(layer)
    return outputs


_KEYWORDS = frozenset({"dim", "dims", "start", "end", "step", "accumulate", "sparse_grad", "implicit"})


def _run_moving(step: Step, args: Any, kwargs: Any) -> list[Any]:
    if step.name in {"view", "_unsafe_view", "reshape"}:
        return [args[0].reshape(args[1])]
    if step.name in {"clone", "contiguous", "alias", "detach", "_to_copy", "lift_fresh", "to", "detach_", "lift"}:
        return [args[0]]
    try:
        result = step.operation(*args, **kwargs)
    except (RuntimeError, NotImplementedError):
        floats = tree_map(lambda leaf: leaf.double() if isinstance(leaf, Tensor) and leaf.dtype == torch.int64 else leaf, args)
        result = step.operation(*floats, **kwargs)
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


def restride(site: Site) -> list[Layers]:
    """`as_strided` to the same shape only changes the memory's order."""
    if site.shape() == site.value(site.step.args[0]).shape:
        return [site.of(site.step.args[0])]
    return refuse(site)


def constant_pad(site: Site) -> list[Layers]:
    """Padding with a constant: what is padded carries label 0."""
    amounts = site.argument(1, "pad")
    moved = [compress(torch.constant_pad_nd(layer, amounts, 0)) for layer in site.of(site.step.args[0])]
    return [moved]


def concatenate(site: Site) -> list[Layers]:
    """Joining tensors: along the joined dimension channels stand side by side, along the others they are the same."""
    tensors = site.argument(0, "tensors")
    rank = len(site.shape())
    dimension = site.argument(1, "dim", 0)
    if site.step.name == "stack":
        dimension = dimension % rank
        joined = [[layer.unsqueeze(dimension) for layer in site.of(ref)] for ref in tensors]
        sizes = [[*site.value(ref).shape[:dimension], 1, *site.value(ref).shape[dimension:]] for ref in tensors]
    else:
        tensors = [ref for ref in tensors if len(site.value(ref).shape) == rank]
        dimension = dimension % rank
        joined = [site.of(ref) for ref in tensors]
        sizes = [list(site.value(ref).shape) for ref in tensors]
    kinds: list[tuple[int, ...]] = []
    for layers in joined:
        for layer in layers:
            other = tuple(d for d in varying(layer) if d != dimension) or (dimension,)
            if other not in kinds:
                kinds.append(other)
    output: Layers = []
    for kind in kinds:
        parts = [
            next((l for l in layers if (tuple(d for d in varying(l) if d != dimension) or (dimension,)) == kind), None)
            for layers in joined
        ]
        known = [part for part in parts if part is not None]
        if kind != (dimension,):
            first = known[0].narrow(dimension, 0, 1)
            for part in known:
                site.labels.unite(part, first.expand(part.shape))
            if len(known) < len(parts):
                site.labels.freeze(known, f"{site.where} joins them with a tensor whose size is fixed")
        filled = [
            part if part is not None else torch.zeros((), dtype=torch.int64).expand(size)
            for part, size in zip(parts, sizes, strict=True)
        ]
        output.append(compress(torch.cat(filled, dim=dimension)))
    return [output]


def index(site: Site) -> list[Layers]:
    """Indexing with tensors: moves labels where the index is a constant of the network, else the channels are fixed."""
    source, indices = site.step.args[0], site.step.args[1:]
    dims = [d for d, item in enumerate(indices[0]) if item is not None] if site.step.name == "index" else [indices[0]]
    touched = [layer for layer in site.of(source) if set(varying(layer)) & {d % layer.dim() for d in dims if isinstance(d, int)}]
    refs = [leaf for leaf in tree_leaves(indices, is_leaf=_is_ref) if isinstance(leaf, Ref)]
    if any(site.value(ref).data is None or site.value(ref).from_input for ref in refs):
        if touched:
            return refuse(site, "chooses channels by what the network computes")
        size = site.shape()
        return [[layer for layer in _kept(site, site.of(source), size)]]
    return move(site)


def _kept(site: Site, layers: Layers, shape: Sequence[int]) -> Layers:
    """Carry layers over an indexing of other dimensions: only a last dimension of the same length is followed."""
    kept = []
    for layer in layers:
        if varying(layer) == (layer.dim() - 1,) and shape and shape[-1] == layer.shape[-1]:
            kept.append(along(compact(layer).reshape(-1), len(shape) - 1, shape))
        else:
            site.labels.freeze([layer], f"{site.where} moves them by what the network computes")
    return kept


def refuse(site: Site, because: str = "has no rule") -> list[Layers]:
    """Freeze all that the step reads and writes."""
    reason = f"{site.where} {because}"
    for leaf in tree_leaves((site.step.args, dict(site.step.kwargs)), is_leaf=_is_ref):
        site.labels.freeze(site.of(leaf), reason)
    outputs: list[Layers] = []
    for position, number in enumerate(site.step.outputs):
        shape = site.shape(position)
        if number is None or not shape or not site.trace.values[number].dtype.is_floating_point:
            outputs.append([])
            continue
        layer = site.labels.fresh(1).expand(shape)
        site.labels.freeze([layer], reason)
        outputs.append([layer])
    return outputs


def create(site: Site) -> list[Layers]:
    """Tensors made of nothing carry no labels."""
    return [[] for _ in site.step.outputs]


def _columns(site: Site, argument: Any, dimension: int) -> Tensor | None:
    """The labels of an operand along one dimension, tied along the others; None where it has none."""
    for layer in site.of(argument):
        if dimension in varying(layer):
            return site.labels.only_along(layer, dimension)
    return None


def convolution(site: Site) -> list[Layers]:
    """Convolution, plain, grouped, depthwise or transposed, in any number of dimensions."""
    source, weight, bias = site.step.args[:3]
    transposed, groups = bool(site.step.args[6]), int(site.step.args[8])
    labels, shape = site.labels, site.value(weight).shape
    out_dim, in_dim = (1, 0) if transposed else (0, 1)
    for layer in site.of(source):
        if 1 not in varying(layer) and varying(layer):
            labels.freeze([layer], f"{site.where} slides over them")
    entering = _columns(site, source, 1)
    rows, columns = _columns(site, weight, out_dim), _columns(site, weight, in_dim)
    labels.hide([layer for layer in site.of(weight) if not {0, 1} & set(varying(layer))])
    site.role(weight, out_dim, makes=True)
    if groups == 1:
        site.role(weight, in_dim, makes=False)
        _contract(site, entering, columns)
        leaving = rows
    else:
        leaving = _grouped(site, entering, rows, columns, groups, transposed)
    if leaving is None:
        return [[]]
    output = along(leaving, 1, site.shape())
    for layer in site.of(bias):
        labels.unite(layer, leaving)
    return [[output]]


def _contract(site: Site, entering: Tensor | None, columns: Tensor | None) -> None:
    if entering is not None and columns is not None:
        site.labels.unite(entering, columns)
    elif columns is not None:
        site.labels.freeze([columns], f"{site.where} takes in a tensor whose size is fixed")
    elif entering is not None and entering.numel() > 1:
        site.labels.freeze([entering], f"{site.where} multiplies them with a tensor whose size is fixed")


def _grouped(
    site: Site, entering: Tensor | None, rows: Tensor | None, columns: Tensor | None, groups: int, transposed: bool
) -> Tensor | None:
    """Group convolution: all parts stay equal, so either whole parts go or the same place in each part."""
    labels = site.labels
    inner = (entering.numel() if entering is not None else site.value(site.step.args[0]).shape[1]) // groups
    if transposed:
        # Weight [in, out / groups, …]: rows are numbered by input, columns by the place in the part.
        rows, columns = columns, rows
        if columns is not None:
            labels.freeze([columns], f"{site.where}: a transposed group convolution keeps its parts")
        if entering is not None:
            labels.freeze([entering], f"{site.where}: a transposed group convolution keeps its parts")
        if rows is not None:
            labels.freeze([rows], f"{site.where}: a transposed group convolution keeps its parts")
        fixed = labels.fresh(1).expand(site.shape()[1])
        labels.freeze([fixed], f"{site.where}: a transposed group convolution keeps its parts")
        return fixed
    if rows is None:
        if entering is not None:
            labels.freeze([entering], f"{site.where} multiplies them with a tensor whose size is fixed")
        return None
    parts = rows.reshape(groups, -1)
    if entering is None:
        labels.freeze([rows], f"{site.where} takes in a tensor whose size is fixed")
        return rows
    fed = entering.reshape(groups, inner)
    if groups >= inner:
        labels.unite(labels.tie(fed, [1]), parts)
        if columns is not None:
            labels.hide([columns])
    else:
        labels.tie(parts, [0])
        labels.tie(fed, [0])
        if columns is not None:
            site.role(site.step.args[1], 1, makes=False)
            labels.unite(fed[0], columns)
    return rows


def matmul(site: Site) -> list[Layers]:
    """Matrix products (mm, bmm, addmm, baddbmm): unite along the contracted dimension, keep the others.

    Where labels also vary along a batch dimension (attention's heads), the whole of each batch entry is tied.
    """
    arguments = site.step.args
    added = arguments[0] if site.step.name in {"addmm", "baddbmm"} else None
    left, right = arguments[1:3] if added is not None else arguments[:2]
    rank, shape, labels = len(site.value(left).shape), site.shape(), site.labels
    sides = ((left, rank - 1, rank - 2), (right, rank - 2, rank - 1))
    output: Layers = []
    contracted: list[Layers] = []
    for argument, inner, outer in sides:
        site.role(argument, inner, makes=False)
        site.role(argument, outer, makes=True)
        tied: Layers = []
        for layer in site.of(argument):
            if inner not in varying(layer):
                output.append(layer.narrow(inner, 0, 1).expand(shape))
                continue
            layer = labels.tie(layer, [outer]).narrow(outer, 0, 1)
            if any(d < rank - 2 for d in varying(layer)):
                layer = labels.tie(layer, [inner])
                output.append(layer.narrow(inner, 0, 1).expand(shape))
            tied.append(layer.transpose(-1, -2) if argument is right else layer)
        contracted.append(tied)
    for one in contracted[0]:
        for other in contracted[1]:
            labels.unite(one, other)
    if not (contracted[0] and contracted[1]):
        labels.freeze(contracted[0] + contracted[1], f"{site.where} multiplies them with a tensor whose size is fixed")
    if added is not None:
        output.extend(layer.expand(shape) for layer in site.of(added))
    return [_merge(site, [layer for layer in output if varying(layer)])]


def _merge(site: Site, layers: Layers) -> Layers:
    """Unite layers that vary along a common dimension; others stand side by side."""
    merged: Layers = []
    for layer in layers:
        dims = set(varying(layer))
        partner = next((k for k, other in enumerate(merged) if dims & set(varying(other))), None)
        if partner is None:
            merged.append(layer)
            continue
        site.labels.unite(merged[partner], layer)
        if len(varying(layer)) > len(varying(merged[partner])):
            merged[partner] = layer
    return merged


def attention(site: Site) -> list[Layers]:
    """Scaled dot-product attention: a whole head goes or stays, so that the scale keeps its meaning."""
    query, key, value = site.step.args[:3]
    labels = site.labels
    heads: list[Tensor] = []
    for argument in (query, key, value):
        for layer in site.of(argument):
            if 2 in varying(layer) or 0 in varying(layer):
                labels.freeze([layer], f"{site.where} looks across them")
            tied = labels.tie(layer, [0, 2, 3]) if 1 in varying(layer) else layer
            if 1 not in varying(layer):
                labels.freeze([layer], f"{site.where}: the width of a single head sets the scale")
            heads.append(tied.narrow(2, 0, 1).narrow(3, 0, 1).narrow(0, 0, 1))
    for head in heads[1:]:
        labels.unite(heads[0], head)
    out = [layer.narrow(2, 0, 1).narrow(0, 0, 1).expand(site.shape()) for layer in site.of(value)]
    return [out, *([] for _ in site.step.outputs[1:])]


def batch_norm(site: Site) -> list[Layers]:
    """BatchNorm: each channel by itself."""
    source = site.of(site.step.args[0])
    for argument in site.step.args[1:5]:
        for layer in site.of(argument):
            own = [item for item in source if 1 in varying(item)]
            if not own:
                site.labels.freeze([layer], f"{site.where} normalises a tensor whose size is fixed")
            for item in own:
                site.labels.unite(item, along(layer, 1, item.shape))
    return [source, *([] for _ in site.step.outputs[1:])]


def layer_norm(site: Site) -> list[Layers]:
    """LayerNorm and RMSNorm over the last dimensions: channels that go change the statistics of the rest."""
    source, normalized = site.step.args[0], site.step.args[1]
    shape = site.value(source).shape
    lengths = len(normalized) if isinstance(normalized, list | tuple) else 1
    dims = set(range(len(shape) - lengths, len(shape)))
    inside = [layer for layer in site.of(source) if dims & set(varying(layer))]
    site.labels.soften(inside, f"{site.where} normalises across them")
    return [meet(site, site.step.args[:1] + site.step.args[2:4], shape), *([] for _ in site.step.outputs[1:])]


def group_norm(site: Site) -> list[Layers]:
    """GroupNorm: a whole part goes exactly; with one part the channels share their statistics."""
    source, weight, bias = site.step.args[:3]
    groups = int(site.step.args[7])
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
    return [site.of(source), *([] for _ in site.step.outputs[1:])]


def spatial(site: Site) -> list[Layers]:
    """Pooling and resizing: channels stay, positions are mixed."""
    shape = site.shape()
    kept: Layers = []
    for layer in site.of(site.step.args[0]):
        sizes = [d for d in varying(layer) if layer.shape[d] != shape[d] or d > 1]
        if 1 in varying(layer):
            kept.append(along(site.labels.only_along(layer, 1), 1, shape))
        elif sizes:
            site.labels.freeze([layer], f"{site.where} mixes them")
        elif varying(layer):
            kept.append(compact(layer).expand(shape))
    return site.each(kept)


def reduction(site: Site) -> list[Layers]:
    """Sums, means and extremes: along other dimensions labels stay; across channels the result is no longer exact."""
    source = site.step.args[0]
    rank = len(site.value(source).shape)
    dims = site.argument(1, "dim")
    if not isinstance(dims, int | list | tuple) or isinstance(dims, bool) or (isinstance(dims, list | tuple) and not dims):
        dims = list(range(rank))
    gone = {d % rank for d in ([dims] if isinstance(dims, int) else dims)} if rank else set()
    output: Layers = []
    for layer in site.of(source):
        crossed = [d for d in varying(layer) if d in gone]
        if crossed:
            if len(varying(layer)) == len(crossed):
                site.labels.soften([layer], f"{site.where} is taken across them")
            layer = site.labels.tie(layer, crossed) if len(varying(layer)) > len(crossed) else layer
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


def embedding(site: Site) -> list[Layers]:
    """Table look-up: columns are channels, rows are fixed."""
    weight = site.step.args[0]
    shape = site.shape()
    site.labels.hide([layer for layer in site.of(weight) if varying(layer) == (0,)])
    site.role(weight, 1, makes=True)
    return [[along(compact(layer).reshape(-1), len(shape) - 1, shape) for layer in site.of(weight) if varying(layer) == (1,)]]


def write(site: Site) -> list[Layers]:
    """Copying into an existing tensor: followed where the whole tensor is written."""
    target, source = site.step.args[:2]
    storage = site.value(target).storage
    first = next(value for value in site.trace.values if value.storage == storage)
    if first.shape != site.value(target).shape and site.of(source):
        return refuse(site, "writes them into a part of another tensor")
    return [meet(site, [source], site.shape())]


MOVES = frozenset(
    "view _unsafe_view reshape permute transpose t expand chunk slice select unbind "
    "unsqueeze squeeze clone contiguous alias detach detach_ _to_copy to lift lift_fresh flip roll pixel_shuffle "
    "pixel_unshuffle channel_shuffle repeat unfold im2col narrow movedim diagonal rot90 tril triu "
    "reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d "
    "upsample_nearest1d upsample_nearest2d upsample_nearest3d native_channel_shuffle swapaxes flatten squeeze_ "
    "unsqueeze_ transpose_ t_".split()
)
SPATIAL = frozenset(
    "max_pool2d_with_indices max_pool3d_with_indices avg_pool1d avg_pool2d avg_pool3d _adaptive_avg_pool2d "
    "_adaptive_avg_pool3d adaptive_avg_pool2d adaptive_max_pool2d adaptive_max_pool3d upsample_bilinear2d "
    "upsample_bicubic2d upsample_linear1d upsample_trilinear3d _upsample_bilinear2d_aa _upsample_bicubic2d_aa "
    "grid_sampler_2d max_pool1d".split()
)
REDUCTIONS = frozenset("mean sum amax amin max min var std var_mean std_mean prod linalg_vector_norm logsumexp any all".split())
CREATIONS = frozenset(
    "empty zeros ones full arange linspace rand randn randint new_zeros new_ones new_full new_empty scalar_tensor eye "
    "randperm empty_strided new_empty_strided _local_scalar_dense item shape size sym_size is_same_size".split()
)
POINTWISE = frozenset(
    "zeros_like ones_like full_like rand_like randn_like empty_like bernoulli bernoulli_ native_dropout dropout "
    "_prelu_kernel prelu fill zero zero_ fill_ uniform_ normal_ nan_to_num addcmul addcdiv threshold".split()
)


def _named(names: frozenset[str] | set[str]) -> Callable[[Step], bool]:
    return lambda step: step.name in names


def _is_pointwise(step: Step) -> bool:
    return torch.Tag.pointwise in step.operation.tags or step.name in POINTWISE


RULES: tuple[tuple[Callable[[Step], bool], Rule], ...] = (
    (_named({"convolution", "_convolution"}), convolution),
    (_named({"mm", "bmm", "addmm", "baddbmm"}), matmul),
    (_named({"native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training",
             "_batch_norm_with_update", "cudnn_batch_norm", "_batch_norm_no_update"}), batch_norm),
    (_named({"native_layer_norm", "_fused_rms_norm"}), layer_norm),
    (_named({"native_group_norm"}), group_norm),
    (_named({"_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_efficient_attention",
             "_scaled_dot_product_flash_attention"}), attention),
    (_named({"_softmax", "_log_softmax", "softmax", "log_softmax"}), softmax),
    (_named({"cat", "stack"}), concatenate),
    (_named({"constant_pad_nd"}), constant_pad),
    (_named({"split", "split_with_sizes"}), split),
    (_named({"as_strided", "as_strided_"}), restride),
    (_named({"index", "index_select"}), index),
    (_named({"embedding"}), embedding),
    (_named({"copy_", "copy"}), write),
    (_named(set(MOVES)), move),
    (_named(set(SPATIAL)), spatial),
    (_named(set(REDUCTIONS)), reduction),
    (_named(set(CREATIONS)), create),
    (_is_pointwise, pointwise),
)
"""Which rule takes which operation; the first that fits."""


def rule_for(step: Step) -> Rule:
    """The rule for a step; `refuse` where there is none."""
    return next((rule for fits, rule in RULES if fits(step)), refuse)


def propagate(trace: Trace, labels: Labels, inputs_frozen: str = "it is the network's input") -> dict[int, Layers]:
    """Lay labels over all values of a trace.

    The network's inputs get labels that are frozen at once; what comes out is frozen too.

    Returns:
        The layers of each value that has any.
    """
    layers: dict[int, Layers] = {}
    for number in trace.inputs:
        shape = trace.values[number].shape
        if not trace.values[number].dtype.is_floating_point:
            continue
        axis = 1 if len(shape) > 2 else len(shape) - 1
        layers[number] = [along(labels.fresh(shape[axis]), axis, shape)] if shape else []
        labels.freeze(layers[number], inputs_frozen)
        labels.hide(layers[number])
    for step in trace.steps:
        site = Site(trace, step, labels, layers)
        for number, found in zip(step.outputs, rule_for(step)(site), strict=False):
            if number is not None:
                layers[number] = found
    for number in trace.outputs:
        site = Site(trace, trace.steps[-1], labels, layers)
        labels.freeze(site.of(Ref(number)), "they reach the network's output")
    return layers


__all__ = ["RULES", "ParameterDimension", "Rule", "Site", "propagate", "rule_for"]
