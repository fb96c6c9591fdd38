"""Classic TensorRT: builds an engine for the GPU that is here; timing with it is not written yet, and says so."""

import re
from pathlib import Path
from typing import Any

from lut.errors import BackendError
from lut.records import DeviceFingerprint
from profiler.backends.interface import (
    BackendStatus,
    BuildReport,
    BuildSettings,
    NodeTime,
    ProfiledSession,
    Session,
    Settings,
)
from profiler.backends.trt_common import build_engine, no_gpu
from profiler.backends.trt_validity import EngineCheck, check_validity
from profiler.nvml import GpuFacts, read_gpu

OLDEST, TOO_NEW = (10, 3), (12, 0)
INSTALL = (
    "pip install 'tensorrt>=10.3,<12' --extra-index-url INDEX (NVIDIA's own; its TensorRT installation guide names it)"
)


class TensorRt:
    """The backend `tensorrt`; the runtime is imported when first used."""

    name = "tensorrt"

    def status(self) -> BackendStatus:
        """Whether it can be used here; never raises."""
        try:
            trt = _runtime()
        except BackendError as error:
            return BackendStatus(self.name, False, None, (), str(error))
        version = str(trt.__version__)
        if read_gpu() is None:
            return BackendStatus(self.name, True, version, (), str(no_gpu(self.name)))
        return BackendStatus(self.name, True, version, ("builds",), str(_not_written()))

    def fingerprint(self, threads: int) -> DeviceFingerprint:
        """Refuse: nothing can be timed."""
        raise _refusal(self.name)

    def open(self, path: Path, settings: Settings) -> Session:
        """Refuse: nothing can be timed."""
        raise _refusal(self.name)

    def open_profiled(self, path: Path, settings: Settings) -> ProfiledSession:
        """Refuse: nothing can be timed."""
        raise _refusal(self.name)

    def kernels(self, path: Path, settings: Settings) -> list[NodeTime]:
        """Refuse: a table of this runtime cannot be made here yet."""
        raise _refusal(self.name)

    def check_engine(self, path: Path) -> EngineCheck:
        """Ask the runtime whether it can load an engine."""
        return check_validity(_runtime(), path)

    def build(self, path: Path, out: Path, settings: BuildSettings) -> BuildReport:
        """Compile an ONNX file for the GPU that is here (classic TensorRT times its kernels while it builds).

        Raises:
            BackendError: there is no GPU, it has another compute capability, or the network cannot be read or built.
        """
        trt = _runtime()
        gpu = read_gpu()
        if gpu is None:
            raise BackendError(
                "Classic TensorRT builds only on a machine with the GPU that the engine is for, and there is none "
                "here. Build there, or with --backend tensorrt-rtx, which needs no GPU."
            )
        _check_here(gpu, settings)
        return build_engine(trt, path, out, backend=self.name, settings=settings, configure=lambda config: None)


def _check_here(gpu: GpuFacts, settings: BuildSettings) -> None:
    others = [name for name in settings.compute_capabilities if name != gpu.compute_capability]
    if others:
        raise BackendError(
            f"Classic TensorRT builds for the GPU that is here ({gpu.name}, {gpu.compute_capability}), not for "
            f"{', '.join(others)}. Build on such a machine, or with --backend tensorrt-rtx."
        )


def _refusal(name: str) -> BackendError:
    return no_gpu(name) if read_gpu() is None else _not_written()


def _not_written() -> BackendError:
    return BackendError(
        "Timing with classic TensorRT is not written yet; latprune builds its engines. Time them with "
        "trtexec --loadEngine=…"
    )


def _runtime() -> Any:
    """Import the package; its libraries, from NVIDIA's own index, may be missing where the bindings are not."""
    try:
        import tensorrt
    except (ImportError, OSError) as error:
        raise BackendError(
            f"TensorRT is not installed, or its libraries are missing ({error}). They come from NVIDIA's own index: "
            f"{INSTALL}"
        ) from error
    check_version(str(getattr(tensorrt, "__version__", "")))
    return tensorrt


def check_version(version: str) -> None:
    """Refuse a TensorRT that this code was not written for.

    Raises:
        BackendError: it is older or newer, or has no version (its libraries are not there).
    """
    found = re.match(r"(\d+)\.(\d+)", version)
    if found is None or not OLDEST <= (int(found[1]), int(found[2])) < TOO_NEW:
        raise BackendError(
            f"TensorRT {version or '(which tells no version)'} is not supported; 10.3 (JetPack 6) to 11.x are. "
            f"Install one of these ({INSTALL}), "
            "or build engines with --backend tensorrt-rtx."
        )
