"""ONNX Runtime's execution providers: what each is asked for, and how a provider that is not really there is noticed.

The runtime's module is an argument; this file does not import it.
"""

import contextlib
import io
import os
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from lut.errors import BackendError
from lut.records import Attribute

INSTALL_GPU = 'pip install "latprune[gpu]" (in an environment without the plain onnxruntime: they overwrite each other)'
TF32_OVERRIDE = "NVIDIA_TF32_OVERRIDE"
"""NVIDIA's libraries read it when they start: with 0 fp32 is fp32 (the TensorRT provider has no option of its own)."""
DISTRIBUTIONS = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-directml",
    "onnxruntime-openvino",
    "onnxruntime-qnn",
    "ort-nightly",
    "ort-nightly-gpu",
)
"""Packages that all install the one folder `onnxruntime`, over each other."""


@dataclass(frozen=True)
class Provider:
    """An execution provider, and what it is asked for.

    Attributes:
        name: ONNX Runtime's.
        options: that change a time; every one is in the fingerprint.
        memory: where inputs and outputs lie while a network is timed, "cpu" or "cuda".
    """

    name: str
    options: tuple[Attribute, ...] = ()
    memory: str = "cpu"

    def listed(self) -> list[tuple[str, dict[str, str]]]:
        """As a session takes it; on a GPU, nodes that it cannot run go to the processor, as they do when deployed."""
        mine = [(self.name, {key: str(value) for key, value in self.options})]
        return mine if self.name == CPU.name else [*mine, (CPU.name, {})]


CPU = Provider("CPUExecutionProvider")
CUDA = Provider(
    "CUDAExecutionProvider",
    (("cudnn_conv_algo_search", "EXHAUSTIVE"), ("device_id", 0), ("use_tf32", 0)),
    "cuda",
)
TENSORRT = Provider(
    "TensorrtExecutionProvider",
    (
        ("device_id", 0),
        ("trt_auxiliary_streams", 0),
        ("trt_builder_optimization_level", 3),
        ("trt_cuda_graph_enable", 0),
        ("trt_engine_cache_enable", 0),
        ("trt_fp16_enable", 0),
        ("trt_int8_enable", 0),
    ),
    "cuda",
)


def open_session(runtime: Any, model: str, options: Any, provider: Provider) -> Any:
    """Load a network on a provider, and on no other in its place.

    Raises:
        BackendError: this build of ONNX Runtime has no such provider, or the provider did not start and ONNX Runtime
            went on with another.
    """
    if provider.name not in runtime.get_available_providers():
        raise BackendError(missing(runtime, provider))
    with contextlib.redirect_stdout(io.StringIO()):  # where it prints that it goes on without; that is seen below
        if provider.memory == "cuda":
            os.environ[TF32_OVERRIDE] = "0"
            runtime.preload_dlls()
        session = runtime.InferenceSession(model, options, providers=provider.listed())
    found = session.get_providers()
    if found[0] != provider.name:
        raise BackendError(
            f"ONNX Runtime could not start its {provider.name} and went on with {found[0]}, whose times are not what "
            "was asked for. Most often CUDA's or cuDNN's libraries of the major version "
            f"that this build needs (CUDA {getattr(runtime, 'cuda_version', '') or 'of its release notes'}) are "
            'missing: pip install "onnxruntime-gpu[cuda,cudnn]"; or the NVIDIA driver is missing or too old: see '
            "nvidia-smi."
        )
    return session


def missing(runtime: Any, provider: Provider) -> str:
    """Why there is no such provider in this build of ONNX Runtime, and how to get one."""
    here = ", ".join(name.removesuffix("ExecutionProvider") for name in runtime.get_available_providers())
    return (
        f"This build of ONNX Runtime {runtime.__version__} has no {provider.name} (it has {here}). Install one that "
        f"has: {INSTALL_GPU}"
    )


def mixed_up(names: Iterable[str] | None = None) -> str | None:
    """Say so where several packages have installed the one `onnxruntime` over each other; else None.

    Args:
        names: of the packages that are installed, or None to look.
    """
    found = sorted(_installed() if names is None else set(names) & set(DISTRIBUTIONS))
    if len(found) < 2:
        return None
    listed = " and ".join(found)
    return (
        f"{listed} are installed over each other: which of them runs is chance, and uninstalling one breaks the other. "
        f"Uninstall them all (pip uninstall {' '.join(found)}), then install the one you want."
    )


def _installed() -> set[str]:
    found = set()
    for name in DISTRIBUTIONS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            metadata.version(name)
            found.add(name)
    return found
