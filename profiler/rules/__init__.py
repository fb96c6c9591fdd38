"""How each kind of ATen operation passes labels on: one rule for all that moves data, few for all that computes.

A rule is a function of the site (one step of the trace) that gives the layers of each output. Which operations it takes
stands in `RULES`, a visible tuple; an operation without a rule freezes what it meets, with that reason.
"""

from collections.abc import Callable, Collection

from profiler.labels import Labels, Layers, along
from profiler.rules.combining import (
    LIKE,
    REDUCTIONS,
    SPATIAL,
    batch_norm,
    gate,
    group_norm,
    is_elementwise,
    layer_norm,
    pointwise,
    reduction,
    softmax,
    spatial,
    weight_norm,
)
from profiler.rules.contracting import attention, convolution, matmul
from profiler.rules.moving import (
    CREATIONS,
    MOVES,
    channel_shuffle,
    concatenate,
    constant_pad,
    embedding,
    index,
    move,
    restride,
    split,
    write,
)
from profiler.rules.site import Rule, Site, create, refuse
from profiler.trace import Ref, Step, Trace

BATCH_NORMS = frozenset(
    "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training _batch_norm_with_update "
    "cudnn_batch_norm _batch_norm_no_update".split()
)


def _named(names: Collection[str]) -> Callable[[Step], bool]:
    return lambda step: step.name in names


RULES: tuple[tuple[Callable[[Step], bool], Rule], ...] = (
    (_named({"convolution", "_convolution"}), convolution),
    (_named({"mm", "bmm", "addmm", "baddbmm"}), matmul),
    (_named(BATCH_NORMS), batch_norm),
    (_named({"native_layer_norm", "_fused_rms_norm"}), layer_norm),
    (_named({"native_group_norm"}), group_norm),
    (_named({"scaled_dot_product_attention"}), attention),
    (_named({"_softmax", "_log_softmax", "softmax", "log_softmax"}), softmax),
    (_named({"glu"}), gate),
    (_named({"_weight_norm_interface", "_weight_norm"}), weight_norm),
    (_named({"channel_shuffle", "native_channel_shuffle"}), channel_shuffle),
    (_named({"cat", "stack"}), concatenate),
    (_named({"constant_pad_nd"}), constant_pad),
    (_named({"split", "split_with_sizes"}), split),
    (_named({"as_strided", "as_strided_"}), restride),
    (_named({"index", "index_select"}), index),
    (_named({"embedding"}), embedding),
    (_named({"copy_", "copy"}), write),
    (_named(MOVES), move),
    (_named(SPATIAL), spatial),
    (_named(REDUCTIONS), reduction),
    (_named(CREATIONS), create),
    (_named(LIKE), pointwise),
    (is_elementwise, pointwise),
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
    makers: dict[int, Step] = {}
    for step in trace.steps:
        found = rule_for(step)(Site(trace, step, labels, layers, makers))
        makers.update((number, step) for number in step.outputs if number is not None)
        layers.update(
            (number, own) for number, own in zip(step.outputs, found, strict=False) if number is not None
        )
    if trace.steps:
        site = Site(trace, trace.steps[-1], labels, layers, makers)
        for number in trace.outputs:
            labels.freeze(site.of(Ref(number)), "they reach the network's output")
    return layers


__all__ = ["REDUCTIONS", "RULES", "SPATIAL", "Rule", "Site", "is_elementwise", "propagate", "rule_for"]
