"""Versions of what takes part in making a file."""

import contextlib
import platform
from importlib import metadata

PACKAGES = ("latprune", "torch", "onnx", "onnxscript", "onnxruntime", "openvino", "tensorrt_rtx_cu13", "numpy")


def versions() -> dict[str, str]:
    """Of Python and of the packages that are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
