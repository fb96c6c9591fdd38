"""The runtimes that latprune knows; a new one is a file in this folder and one more line in `BACKENDS`."""

from collections.abc import Mapping
from dataclasses import replace

from lut.errors import BackendError
from lut.memory import MemoryRules
from profiler.backends import tensorrt_rtx
from profiler.backends.interface import (
    Backend,
    BackendStatus,
    BuildReport,
    BuildSettings,
    KernelRecord,
    KernelTensor,
    NodeTime,
    ProfiledSession,
    Session,
    Settings,
)
from profiler.backends.onnxruntime import OnnxRuntime
from profiler.backends.onnxruntime_gpu import ON_CUDA, ON_TENSORRT
from profiler.backends.openvino import OpenVino
from profiler.backends.tensorrt import TensorRt
from profiler.backends.tensorrt_rtx import TensorRtRtx

__all__ = [
    "BACKENDS",
    "MEMORY",
    "Backend",
    "BackendStatus",
    "BuildReport",
    "BuildSettings",
    "KernelRecord",
    "KernelTensor",
    "NodeTime",
    "ProfiledSession",
    "Session",
    "Settings",
    "get_backend",
    "memory_rules",
    "statuses",
]

BACKENDS: tuple[Backend, ...] = (OnnxRuntime(), ON_CUDA, ON_TENSORRT, TensorRt(), TensorRtRtx(), OpenVino())
"""Each imports its runtime when it is first used, in its own file and nowhere else."""


MEMORY: Mapping[str, MemoryRules] = {"tensorrt-rtx": tensorrt_rtx.MEMORY}
"""How runtimes lay out a network's memory, where that was found (docs/memory.md); of others live tensors are summed."""

SHARES: Mapping[str, tuple[float, float]] = {"fp32": (1.0, 1.0), "fp16": (0.5, 0.5), "int8": (0.25, 1.0)}
"""What other precisions leave of fp32's weights and tensors; those of an int8 network stay floats between kernels."""


def memory_rules(runtime: str, precision: str = "fp32") -> MemoryRules | None:
    """How a runtime lays a network out that is compiled in a precision; None where that is not known.

    Args:
        runtime: name of the backend.
        precision: sizes of tensors are given as in fp32.
    """
    rules = MEMORY.get(runtime)
    if rules is None or precision not in SHARES:
        return rules
    weights, activations = SHARES[precision]
    return replace(rules, weights_share=weights, activations_share=activations)


def statuses() -> list[BackendStatus]:
    """Tell which runtimes can be used here, what they can do, and what the others lack (imports them; a second)."""
    return [backend.status() for backend in BACKENDS]


def get_backend(name: str) -> Backend:
    """Give the runtime of that name.

    Raises:
        BackendError: there is none of that name, or it is not installed.
    """
    for backend in BACKENDS:
        if backend.name == name:
            status = backend.status()
            if not status.installed:
                raise BackendError(status.why_not or f"The runtime {name} is not installed.")
            return backend
    raise BackendError(f"There is no backend called {name!r}. These are known: {', '.join(b.name for b in BACKENDS)}.")
