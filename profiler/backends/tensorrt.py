"""Classic TensorRT: builds engines for the GPU that is here, runs them, and times them whole and layer by layer.

Its timing has not been run on a GPU yet: docs/unverified.md.
"""

import re
from pathlib import Path
from typing import Any

from lut.errors import BackendError
from lut.records import DeviceFingerprint
from profiler.backends.cuda import open_cuda
from profiler.backends.interface import (
    BackendStatus,
    BuildReport,
    BuildSettings,
    NodeTime,
    Settings,
)
from profiler.backends.trt_common import build_engine, no_gpu, write_atomically
from profiler.backends.trt_opening import Opener
from profiler.backends.trt_profiled import ProfiledEngine
from profiler.backends.trt_session import EngineSession
from profiler.backends.trt_validity import EngineCheck, check_validity
from profiler.nvml import GpuFacts, read_gpu
from profiler.progress import Progress

OLDEST, TOO_NEW = (10, 3), (12, 0)
TIMING_ITERATIONS = 8
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
        try:
            open_cuda()
        except BackendError as error:
            return BackendStatus(self.name, True, version, ("builds",), str(error))
        return BackendStatus(self.name, True, version, ("builds", "measures", "times nodes"))

    def fingerprint(self, threads: int) -> DeviceFingerprint:
        """This GPU, TensorRT's version, and all settings that change an engine or its times."""
        return self._opener().fingerprint()

    def open(self, path: Path, settings: Settings) -> EngineSession:
        """Load an ONNX file (compiled first) or an engine to be timed and run."""
        return self._opener().open(path, settings)

    def open_profiled(self, path: Path, settings: Settings) -> ProfiledEngine:
        """Load an ONNX file so that each of its layers is timed."""
        return self._opener().open_profiled(path, settings)

    def kernels(self, path: Path, settings: Settings) -> list[NodeTime]:
        """Compile an ONNX file, which takes a while here, and tell its layers without times."""
        return self._opener().list_nodes(path, settings)

    def check_engine(self, path: Path) -> EngineCheck:
        """Ask the runtime whether it can load an engine."""
        return check_validity(_runtime(), path)

    def build(self, path: Path, out: Path, settings: BuildSettings) -> BuildReport:
        """Compile an ONNX file for the GPU that is here (classic TensorRT times its kernels while it builds).

        Raises:
            BackendError: there is no GPU, it has another compute capability, or the network cannot be read or built.
        """
        return self._build(path, out, settings, None)

    def _build(self, path: Path, out: Path, settings: BuildSettings, cache: Path | None) -> BuildReport:
        """Compile, with what was learned of kernels before (`cache`), and keep what is learned now."""
        trt = _runtime()
        gpu = read_gpu()
        if gpu is None:
            raise BackendError(
                "Classic TensorRT builds only on a machine with the GPU that the engine is for, and there is none "
                "here. Build there, or with --backend tensorrt-rtx, which needs no GPU."
            )
        _check_here(gpu, settings)
        configs: list[Any] = []

        def configure(config: Any) -> None:
            _configure(config)
            if cache is not None:
                known = cache.read_bytes() if cache.is_file() else b""
                if not config.set_timing_cache(config.create_timing_cache(known), False):
                    config.set_timing_cache(config.create_timing_cache(b""), False)  # of another GPU or version
            configs.append(config)

        report = build_engine(trt, path, out, backend=self.name, settings=settings, configure=configure)
        if cache is not None:
            write_atomically(cache, configs[0].get_timing_cache().serialize())
        return report

    def _opener(self) -> Opener:
        trt = _runtime()
        if read_gpu() is None:
            raise no_gpu(self.name)

        def build(path: Path, out: Path, cache: Path | None, progress: Progress) -> BuildReport:
            return self._build(path, out, BuildSettings(progress=progress), cache)

        return Opener(self.name, trt, build, _configure, "trtexec")


def _configure(config: Any) -> None:
    """Time each tactic several times: engines differ less from build to build."""
    config.avg_timing_iterations = TIMING_ITERATIONS


def _check_here(gpu: GpuFacts, settings: BuildSettings) -> None:
    others = [name for name in settings.compute_capabilities if name != gpu.compute_capability]
    if others:
        raise BackendError(
            f"Classic TensorRT builds for the GPU that is here ({gpu.name}, {gpu.compute_capability}), not for "
            f"{', '.join(others)}. Build on such a machine, or with --backend tensorrt-rtx."
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
    if not hasattr(tensorrt, "__version__"):  # an empty folder, which is what its type stubs leave
        raise BackendError(f"TensorRT is not installed, only its type stubs are. Install it: {INSTALL}")
    check_version(str(tensorrt.__version__))
    return tensorrt


def check_version(version: str) -> None:
    """Refuse a TensorRT that this code was not written for.

    Raises:
        BackendError: it is older or newer, or its version cannot be read.
    """
    found = re.match(r"(\d+)\.(\d+)", version)
    if found is None or not OLDEST <= (int(found[1]), int(found[2])) < TOO_NEW:
        raise BackendError(
            f"TensorRT {version or '(whose version is empty)'} is not supported; 10.3 (JetPack 6) to 11.x are. "
            f"Install one of these ({INSTALL}), or build engines with --backend tensorrt-rtx."
        )
