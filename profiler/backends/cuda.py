"""CUDA's runtime as far as timing needs it: memory, streams, events and graphs on one GPU (the only file that uses it).

Every call that fails raises `BackendError` in words. Handles are plain integers or CUDA's own objects; whoever makes
one gives it back.
"""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lut.errors import BackendError
from profiler.backends.interface import Array
from profiler.gpu_summary import Lap

INSTALL = "pip install cuda-bindings"
MEANINGS = {
    "cudaErrorInsufficientDriver": (
        "there is no NVIDIA driver here, or it is older than this CUDA runtime ({runtime}) needs. Engines can be built "
        "without one; to run them, install or update the driver (nvidia-smi shows it), or start the container with the "
        "GPU (docker run --gpus all)"
    ),
    "cudaErrorNoDevice": "the driver finds no GPU. CUDA_VISIBLE_DEVICES may hide it; nvidia-smi lists what is there",
    "cudaErrorMemoryAllocation": (
        "the GPU has too little free memory. Other processes may hold some: nvidia-smi lists them"
    ),
    "cudaErrorSystemDriverMismatch": "the driver was updated while the old one is loaded. Restart the machine",
    "cudaErrorECCUncorrectable": "the GPU's memory has an error that cannot be corrected. Restart the machine",
    "cudaErrorDevicesUnavailable": "the GPU is in use in exclusive mode, or cannot be reached now",
}
"""What a user can do about errors of CUDA, by their name."""


@dataclass(frozen=True)
class CudaFacts:
    """A GPU as CUDA tells it.

    Attributes:
        multiprocessors: their count (a part of the GPU where it is partitioned).
        cache_bytes: of its second-level cache.
        compute_capability: "8.6" …
        pci_bus_id: by which NVML knows it.
        cuda: versions of driver and runtime, as "13.0, runtime 13.5".
    """

    multiprocessors: int
    cache_bytes: int
    compute_capability: str
    pci_bus_id: str
    cuda: str


class Cuda:
    """The first GPU that CUDA shows to this process."""

    def __init__(self, runtime: Any) -> None:
        """Take `cuda.bindings.runtime`, and make sure that there is a GPU.

        Raises:
            BackendError: there is none, or its driver is too old.
        """
        self._runtime = runtime
        if not self._call("cudaGetDeviceCount"):
            raise BackendError(f"CUDA cannot be used: {MEANINGS['cudaErrorNoDevice']}.")
        self._call("cudaSetDevice", 0)

    def facts(self) -> CudaFacts:
        """What the GPU is."""
        attribute = self._runtime.cudaDeviceAttr

        def ask(item: Any) -> int:
            return int(self._call("cudaDeviceGetAttribute", item, 0))

        address = self._call("cudaDeviceGetPCIBusId", 32, 0)
        driver, runtime = self._call("cudaDriverGetVersion"), self._call("cudaRuntimeGetVersion")
        return CudaFacts(
            multiprocessors=ask(attribute.cudaDevAttrMultiProcessorCount),
            cache_bytes=ask(attribute.cudaDevAttrL2CacheSize),
            compute_capability=(
                f"{ask(attribute.cudaDevAttrComputeCapabilityMajor)}.{ask(attribute.cudaDevAttrComputeCapabilityMinor)}"
            ),
            pci_bus_id=bytes(address).split(b"\0")[0].decode(),
            cuda=f"{_version(driver)}, runtime {_version(runtime)}",
        )

    def allocate(self, size_bytes: int) -> int:
        """Allocate memory on the GPU; gives its address."""
        return int(self._call("cudaMalloc", max(size_bytes, 1)))

    def free(self, address: int) -> None:
        """Give memory back."""
        self._call("cudaFree", address)

    def upload(self, address: int, array: Array, stream: Any) -> None:
        """Copy an array (contiguous) to the GPU, and wait."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", address, array.ctypes.data, array.nbytes, kind, stream)
        self.wait(stream)

    def download(self, array: Array, address: int, stream: Any) -> None:
        """Copy from the GPU into an array (contiguous), and wait."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", array.ctypes.data, address, array.nbytes, kind, stream)
        self.wait(stream)

    def fill(self, address: int, size_bytes: int, stream: Any) -> None:
        """Write zeros, on the stream; that is also how the cache is emptied."""
        self._call("cudaMemsetAsync", address, 0, size_bytes, stream)

    def make_stream(self) -> Any:
        """Make a stream that waits for no other (work on the default stream waits for all)."""
        return self._call("cudaStreamCreateWithFlags", self._runtime.cudaStreamNonBlocking)

    def wait(self, stream: Any) -> None:
        """Wait until a stream is empty."""
        self._call("cudaStreamSynchronize", stream)

    def close_stream(self, stream: Any) -> None:
        """Give a stream back."""
        self._call("cudaStreamDestroy", stream)

    def make_event(self) -> Any:
        """Make an event that notes the time."""
        return self._call("cudaEventCreate")

    def close_event(self, event: Any) -> None:
        """Give an event back."""
        self._call("cudaEventDestroy", event)

    def time(self, launch: Callable[[], object], stream: Any, events: tuple[Any, Any]) -> Lap:
        """Launch something on an empty stream between two events, and wait for its end."""
        first, last = events
        self._call("cudaEventRecord", first, stream)
        start = time.perf_counter()
        launch()
        enqueued = time.perf_counter()
        self._call("cudaEventRecord", last, stream)
        self._call("cudaEventSynchronize", last)
        return Lap(float(self._call("cudaEventElapsedTime", first, last)), (enqueued - start) * 1e3)

    def capture(self, launch: Callable[[], object], stream: Any) -> Any:
        """Record what is launched as a graph that can be launched at once; nothing runs.

        Raises:
            BackendError: something in it cannot be recorded.
        """
        mode = self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", stream, mode)
        try:
            launch()
        except BaseException:
            with contextlib.suppress(BackendError):  # what went wrong first is the error to raise
                self._call("cudaGraphDestroy", self._call("cudaStreamEndCapture", stream))
            raise
        graph = self._call("cudaStreamEndCapture", stream)
        try:
            return self._call("cudaGraphInstantiate", graph, 0)
        finally:
            self._call("cudaGraphDestroy", graph)

    def launch(self, graph: Any, stream: Any) -> None:
        """Launch a graph."""
        self._call("cudaGraphLaunch", graph, stream)

    def close_graph(self, graph: Any) -> None:
        """Give a graph back."""
        self._call("cudaGraphExecDestroy", graph)

    def _call(self, function: str, *arguments: Any) -> Any:
        """Call CUDA; gives what it returns beside the error."""
        error, *values = getattr(self._runtime, function)(*arguments)
        if error != self._runtime.cudaError_t.cudaSuccess:
            raise BackendError(explain(self._runtime, error, function))
        return values[0] if values else None


def open_cuda() -> Cuda:
    """Find the GPU.

    Raises:
        BackendError: CUDA's bindings are missing, or there is no GPU; with what to do.
    """
    return Cuda(_import_runtime())


def explain(runtime: Any, error: Any, function: str) -> str:
    """Say in words what an error of CUDA means, and what to do."""
    _, name = runtime.cudaGetErrorName(error)
    word = name.decode() if isinstance(name, bytes) else str(name)
    meaning = MEANINGS.get(word)
    if meaning is None:
        _, text = runtime.cudaGetErrorString(error)
        meaning = f"{text.decode() if isinstance(text, bytes) else text} (in {function})"
    _, version = runtime.cudaRuntimeGetVersion()
    return f"CUDA cannot be used (error {int(error)}, {word}): {meaning.format(runtime=_version(version))}."


def flush_bytes(facts: CudaFacts) -> int:
    """How much has to be written for nothing of before to be left in the cache."""
    return max(2 * facts.cache_bytes, 2**20)


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _import_runtime() -> Any:
    try:
        from cuda.bindings import runtime
    except ImportError as error:
        raise BackendError(f"CUDA's Python bindings are not installed ({error}). Install them: {INSTALL}") from error
    return runtime
