"""How each kind of ATen operation passes labels on: one rule for all that moves data, few for all that computes.

A rule is a function of the site (one step of the trace) that gives the layers of each output. Which operations it takes
stands in `RULES`, a visible tuple; an operation without a rule freezes what it meets, with that reason.
"""

from collections.abc import Callable, Collection, Sequence

from profiler.labels import Labels, Layers, along
from profiler.rules.combining import LIKE, REDUCTIONS, gate, is_elementwise, pointwise, reduction
from profiler.rules.contracting import convolution
from profiler.rules.creating import NUMBERED, STRETCHES, UNIFORM, create, numbered, stretch, triangle
from profiler.rules.deformable import deformable_convolution
from profiler.rules.fourier import TRANSFORMS, complex_pairs, transform
from profiler.rules.moving import (
    MOVES,
    SPLITS,
    channel_shuffle,
    concatenate,
    constant_pad,
    move,
    pick,
    restride,
    split,
)
from profiler.rules.multiplying import PRODUCTS, attention, distance, dot, matmul, trilinear
from profiler.rules.norms import batch_norm, group_norm, layer_norm, softmax, weight_norm
from profiler.rules.placing import embedding, gather, index, index_add, index_put, order, scatter, write, write_part
from profiler.rules.site import History, Rule, Site, refuse, used_steps
from profiler.rules.spatial import NEAREST, SPATIAL, folded, nearest, parted_regions, regions, spatial, turned, unfolded
from profiler.trace import Ref, Step, Trace

BATCH_NORMS = frozenset(
    "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training _batch_norm_with_update "
    "cudnn_batch_norm _batch_norm_no_update".split()
)
ALONG_ONE = frozenset(
    "_softmax _log_softmax softmax log_softmax cumsum cumsum_ cumprod cumprod_ logcumsumexp cummax cummin "
    "_weight_norm_differentiable".split()
)
ORDERINGS = frozenset("sort argsort topk kthvalue argmax argmin median nanmedian mode msort".split())
SCATTERS = frozenset("scatter scatter_ scatter_add scatter_add_ scatter_reduce scatter_reduce_".split())


def _named(names: Collection[str]) -> Callable[[Step], bool]:
    return lambda step: step.name in names


RULES: tuple[tuple[Callable[[Step], bool], Rule], ...] = (
    (_named({"convolution", "_convolution"}), convolution),
    (_named({"deform_conv2d"}), deformable_convolution),
    (_named(PRODUCTS), matmul),
    (_named({"dot", "vdot"}), dot),
    (_named({"_cdist_forward", "_euclidean_dist"}), distance),
    (_named({"_trilinear"}), trilinear),
    (_named({"scaled_dot_product_attention"}), attention),
    (_named(BATCH_NORMS), batch_norm),
    (_named({"native_layer_norm", "_fused_rms_norm"}), layer_norm),
    (_named({"native_group_norm"}), group_norm),
    (_named(ALONG_ONE), softmax),
    (_named({"glu"}), gate),
    (_named({"_weight_norm_interface", "_weight_norm"}), weight_norm),
    (_named({"channel_shuffle", "native_channel_shuffle"}), channel_shuffle),
    (_named({"cat", "stack"}), concatenate),
    (_named({"constant_pad_nd"}), constant_pad),
    (_named(SPLITS), split),
    (_named({"select", "unbind", "select_copy", "unbind_copy"}), pick),
    (_named({"as_strided", "as_strided_"}), restride),
    (_named({"index", "_unsafe_index", "index_select"}), index),
    (_named({"index_put", "index_put_", "_index_put_impl_", "_unsafe_index_put"}), index_put),
    (_named({"index_add", "index_add_", "index_copy", "index_copy_", "index_fill", "index_fill_"}), index_add),
    (_named({"gather"}), gather),
    (_named(SCATTERS), scatter),
    (_named({"slice_scatter", "select_scatter"}), write_part),
    (_named({"embedding", "_embedding_bag", "_embedding_bag_forward_only"}), embedding),
    (_named({"copy_", "copy"}), write),
    (_named(ORDERINGS), order),
    (_named(STRETCHES), stretch),
    (_named({"tril", "triu", "tril_", "triu_"}), triangle),
    (_named({"im2col"}), unfolded),
    (_named({"col2im"}), folded),
    (_named(NEAREST), nearest),
    (_named({"affine_grid_generator"}), turned),
    (_named({"roi_align", "roi_pool"}), regions),
    (_named({"ps_roi_align", "ps_roi_pool"}), parted_regions),
    (_named(TRANSFORMS), transform),
    (_named({"view_as_complex", "view_as_real"}), complex_pairs),
    (_named(MOVES), move),
    (_named(SPATIAL), spatial),
    (_named(REDUCTIONS), reduction),
    (_named(UNIFORM), create),
    (_named(NUMBERED), numbered),
    (_named(LIKE), pointwise),
    (is_elementwise, pointwise),
)
"""Which rule takes which operation; the first that fits."""


def rule_for(step: Step) -> Rule:
    """The rule for a step; `refuse` where there is none."""
    return next((rule for fits, rule in RULES if fits(step)), refuse)


def _channel_axis(shape: Sequence[int]) -> int:
    """Where an input's channels probably stand; a picture without a batch dimension has three or four of them."""
    if len(shape) == 3 and shape[0] in {3, 4} and min(shape[1:]) > 4:
        return 0
    return 1 if len(shape) > 2 else len(shape) - 1


def propagate(trace: Trace, labels: Labels, inputs_frozen: str = "it is the network's input") -> dict[int, Layers]:
    """Lay labels over all values of a trace.

    The network's inputs get labels that are frozen at once; what comes out is frozen too.

    Returns:
        The layers of each value that has any.
    """
    layers: dict[int, Layers] = {}
    for given in trace.inputs:
        shape = trace.values[given].shape
        if not trace.values[given].dtype.is_floating_point:
            continue
        axis = _channel_axis(shape)
        layers[given] = [along(labels.fresh(shape[axis]), axis, shape)] if shape else []
        labels.freeze(layers[given], inputs_frozen)
        labels.hide(layers[given])
    labels.trained.update(value.name for value in trace.values if value.name and value.trainable)
    history = History()
    for place, (step, used) in enumerate(zip(trace.steps, used_steps(trace), strict=True)):
        found = rule_for(step)(Site(trace, step, labels, layers, history, used))
        history.add(place, step, trace)
        layers.update((number, own) for number, own in zip(step.outputs, found, strict=False) if number is not None)
    if trace.steps:
        site = Site(trace, trace.steps[-1], labels, layers, history)
        for number in trace.outputs:
            labels.freeze(site.of(Ref(number)), "they reach the network's output")
    return layers


__all__ = ["REDUCTIONS", "RULES", "SPATIAL", "Rule", "Site", "is_elementwise", "propagate", "rule_for"]
