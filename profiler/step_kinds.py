"""What a step of a trace is to a cut into units: it contracts, shows, moves, normalises, follows, or costs nothing."""

from profiler.rules import is_elementwise
from profiler.trace import Step, Trace

CONTRACTIONS = {"convolution": "convolution", "mm": "linear", "addmm": "linear", "bmm": "matmul", "baddbmm": "matmul"}
VIEWS = frozenset(
    "view _unsafe_view reshape unsqueeze squeeze expand detach alias clone contiguous lift_fresh as_strided "
    "as_strided_ flatten unsqueeze_ squeeze_ detach_ _to_copy".split()
)
NORMS = frozenset(
    "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training cudnn_batch_norm "
    "_batch_norm_no_update".split()
)
LAYER_NORMS = frozenset({"native_layer_norm", "_fused_rms_norm"})
SOFTMAX = frozenset({"_softmax", "softmax"})
ATTENTION = "scaled_dot_product"
"""Stands in the names of PyTorch's own attention, in whatever form a device has it."""
MOVES = frozenset(
    "cat stack split split_with_sizes unsafe_split unsafe_split_with_sizes chunk unsafe_chunk unbind select slice "
    "narrow permute transpose movedim swapaxes flip roll channel_shuffle native_channel_shuffle constant_pad_nd "
    "repeat".split()
)
"""Operations that put elements elsewhere."""


def free_because(trace: Trace, step: Step) -> str | None:
    """Why a step costs nothing at run time, or None."""
    values = trace.values
    if not any(values[index].from_input for index in step.inputs):
        return "computed once from constants"
    if step.name in VIEWS:
        return "a view"
    if all(index is None for index in step.outputs):
        return "makes no tensor"
    return None


def is_follower(step: Step) -> bool:
    """Whether a step computes each element from that at its place, so that the unit before it can absorb it."""
    return step.name in NORMS or is_elementwise(step)
