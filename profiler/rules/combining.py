"""Operations that compute element by element, and reductions."""

from collections.abc import Sequence

import torch

from profiler.labels import Doubtful, Layers, compact, varying
from profiler.rules.norms import across
from profiler.rules.site import Site, meet, refs_in
from profiler.trace import Step

REDUCTIONS = frozenset(
    "mean sum amax amin max min var std var_mean std_mean prod linalg_vector_norm norm logsumexp any all nansum "
    "nanmean aminmax count_nonzero".split()
)
ADDING = frozenset("sum nansum linalg_vector_norm norm count_nonzero any".split())
"""Reductions to which zeros add nothing."""

ELEMENTWISE = frozenset(
    "hardswish relu6 mish gelu abs rrelu_with_noise threshold log_sigmoid log_sigmoid_forward prelu _prelu_kernel "
    "where masked_fill eq ne lt gt le ge copysign xlogy heaviside rsub floor_divide true_divide special_expit "
    "nan_to_num addcmul addcdiv complex polar real imag softplus hardtanh celu elu selu glu_jvp hardsigmoid "
    "hardshrink softshrink lerp bucketize searchsorted isin".split()
)
"""Element-wise operations that PyTorch does not tag as such in every form."""

LIKE = frozenset(
    "zeros_like ones_like full_like rand_like randn_like empty_like bernoulli bernoulli_ native_dropout dropout "
    "fill zero zero_ fill_ uniform_ normal_ exponential_ feature_dropout alpha_dropout".split()
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


def reduction(site: Site) -> list[Layers]:
    """Sums, means and extremes: other dimensions' labels stay; across channels the result is no longer exact."""
    source = site.step.args[0]
    rank = len(site.value(source).shape)
    dims = site.argument(2 if site.step.name in {"linalg_vector_norm", "norm"} else 1, "dim")
    if isinstance(dims, bool) or not isinstance(dims, int | list | tuple) or dims in ([], ()):
        dims = list(range(rank))
    gone = {d % rank for d in ([dims] if isinstance(dims, int) else dims)} if rank else set()
    layers = site.of(source)
    if _tells_which(site):
        chosen = [layer for layer in layers if gone & set(varying(layer))]
        site.freeze(chosen, "chooses among them by what the network computes")
    reason = "is taken across them"
    across(site, layers, gone, Doubtful(reason) if site.step.name in ADDING else reason)
    if site.step.name == "sum" and site.value(source).from_input:
        site.labels.consumed.update(
            key for layer in layers if gone & set(varying(layer)) for key in site.labels.keys_of(layer)
        )
    output: Layers = []
    for layer in layers:
        left = [d for d in varying(layer) if d not in gone]
        if left:
            whole = site.labels.tie(layer, [d for d in varying(layer) if d in gone])
            small = compact(whole)
            output.append(small.reshape(_without(small.shape, gone, site.shape())).expand(site.shape()))
    return site.each(output)


def _tells_which(site: Site) -> bool:
    """Whether the network uses the places that `max` and `min` along a dimension give beside the values."""
    places = site.step.outputs[1] if len(site.step.outputs) > 1 and site.step.name in {"max", "min"} else None
    if places is None:
        return False
    return places in site.trace.outputs or any(places in step.inputs for step in site.trace.steps)


def _without(shape: Sequence[int], gone: set[int], output: Sequence[int]) -> list[int]:
    if len(shape) == len(output):
        return list(shape)
    return [length for d, length in enumerate(shape) if d not in gone]
