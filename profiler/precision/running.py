"""Run an ONNX model that is still in memory, as it stands, with ONNX Runtime on the CPU.

Its optimisations stay off: they are not those of the runtime that the model is for, and those of 1.32 compute something
else where Q/DQ pairs have fp16 scales (MobileNetV2 in int8 with an fp16 remainder: off by 0.69 of the largest output;
by 0.016 as it stands).
"""

import onnx

from profiler.backends.onnxruntime_plain import PlainSession
from profiler.precision.rounding import with_visible_rounding


def opened(model: onnx.ModelProto, *, optimised: bool = False) -> PlainSession:
    """Load a model, fp16 rounded as on a GPU; or `optimised`, as ONNX Runtime runs it where it is deployed with it.

    Raises:
        BackendError: ONNX Runtime is missing, or has no kernel for one of the nodes.
    """
    if not optimised:
        model = with_visible_rounding(model)
    return PlainSession(model.SerializeToString(), optimised=optimised)
