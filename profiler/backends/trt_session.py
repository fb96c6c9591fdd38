"""An engine of either TensorRT, loaded and launched on a GPU: its buffers, its launches between events, its outputs.

The module (`tensorrt` or `tensorrt_rtx`) and CUDA are arguments; this file imports neither.
"""

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from lut.errors import BackendError
from profiler.backends.inputs import name_feeds, random_inputs
from profiler.backends.interface import Array, Feeds
from profiler.backends.trt_common import write_atomically
from profiler.backends.trt_log import LogRecord, make_logger
from profiler.gpu_summary import Lap
from profiler.gpu_timing import SETTLE, is_launch_bound, launches_for

SHOWN_ERRORS = 3


@dataclass(frozen=True)
class LaunchSettings:
    """How an engine is launched.

    Attributes:
        seed: of the random inputs.
        graph: whether to capture a CUDA graph where that is possible.
        cache: the runtime cache of TensorRT for RTX, read if it is there and written at the end; None keeps none.
        flush_bytes: written before each launch, outside its time, so that the GPU's cache is cold; 0 for a warm one.
    """

    seed: int = 0
    graph: bool = True
    cache: Path | None = None
    flush_bytes: int = 0


@dataclass(frozen=True)
class Tensor:
    """An input or output of an engine, and its memory on the GPU."""

    name: str
    is_input: bool
    dtype: type[np.generic]
    shape: tuple[int, ...]
    address: int


class EngineSession:
    """An engine in a GPU's memory with random inputs in place; also what `profiler.gpu_timing` launches.

    Attributes:
        launches: inferences in one lap.
        graph: whether they are launched as a captured graph.
        can_graph: whether a graph was captured.
        remarks: why there is no graph, in words.
        reproduced_by: NVIDIA's tool and what it has to be told to time the same network.
        pci_bus_id: of the GPU.
        plain_launch_bound: whether without a graph the GPU would wait for the host.
    """

    def __init__(self, trt: Any, engine: bytes, cuda: Any, settings: LaunchSettings) -> None:
        """Load it, run it a few times, and capture a graph.

        Raises:
            BackendError: the engine is for another GPU or version, or does not run.
        """
        self._cuda, self._trt, self._settings = cuda, trt, settings
        self._closing = contextlib.ExitStack()
        self._records: list[LogRecord] = []
        self._captured: Any = None
        self.launches, self.remarks = 1, list[str]()
        self.can_graph = self.graph = self.plain_launch_bound = False
        self.reproduced_by: tuple[str, ...] = ()
        self.pci_bus_id: str = cuda.facts().pci_bus_id
        try:
            self._load(engine)
            self._bind()
            self._prepare()
        except BaseException:
            self.close()
            raise

    def _load(self, engine: bytes) -> None:
        trt, cuda = self._trt, self._cuda
        self._logger = make_logger(trt, self._records)
        self._runtime = trt.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(engine)
        if self._engine is None:
            raise BackendError(f"The engine cannot be loaded: {self._last_errors()}")
        self._stream = cuda.make_stream()
        self._closing.callback(cuda.close_stream, self._stream)
        self._events = cuda.make_event(), cuda.make_event()
        for event in self._events:
            self._closing.callback(cuda.close_event, event)
        self._context = self._make_context()
        if self._context is None:
            raise BackendError(f"The engine cannot be run: {self._last_errors()}")

    def _make_context(self) -> Any:
        """Make the context; TensorRT for RTX compiles its kernels now, and captures graphs by itself."""
        trt, engine = self._trt, self._engine
        if not hasattr(trt, "IRuntimeCache"):
            return engine.create_execution_context()
        config = engine.create_runtime_config()
        strategy = trt.CudaGraphStrategy
        config.cuda_graph_strategy = strategy.WHOLE_GRAPH_CAPTURE if self._settings.graph else strategy.DISABLED
        config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
        path = self._settings.cache
        if path is not None:
            cache = config.create_runtime_cache()
            if path.is_file():
                cache.deserialize(path.read_bytes())  # False for another GPU or version: it is then written anew
            config.set_runtime_cache(cache)
            self._closing.callback(lambda: write_atomically(path, cache.serialize()))
        return engine.create_execution_context(config)

    def _bind(self) -> None:
        """Give every tensor its memory, and inputs their values."""
        engine, context = self._engine, self._context
        names = [engine.get_tensor_name(number) for number in range(engine.num_io_tensors)]
        given = [name for name in names if engine.get_tensor_mode(name) == self._trt.TensorIOMode.INPUT]
        for name in given:
            shape = tuple(engine.get_tensor_shape(name))
            if any(size < 0 for size in shape):
                context.set_input_shape(name, tuple(engine.get_tensor_profile_shape(name, 0)[1]))
        self._tensors = {name: self._allocate(name, name in given) for name in names}
        wanted = [(item.name, item.dtype, item.shape) for item in self._tensors.values() if item.is_input]
        for name, value in random_inputs(wanted, self._settings.seed).items():
            self._cuda.upload(self._tensors[name].address, np.ascontiguousarray(value), self._stream)
        if self._settings.flush_bytes:
            self._flushed = self._cuda.allocate(self._settings.flush_bytes)
            self._closing.callback(self._cuda.free, self._flushed)

    def _allocate(self, name: str, is_input: bool) -> Tensor:
        shape = tuple(int(size) for size in self._context.get_tensor_shape(name))
        if any(size < 0 for size in shape):
            raise BackendError(
                f"The shape of {name} depends on what is computed ({shape}); such engines cannot be timed. Export the "
                "part before it."
            )
        kind = self._engine.get_tensor_dtype(name)
        try:
            dtype = np.dtype(self._trt.nptype(kind)).type
        except (TypeError, KeyError) as error:
            raise BackendError(
                f"numpy has no type for {name}, a {kind}. Build with fp32 inputs and outputs."
            ) from error
        if self._engine.get_tensor_format(name) != self._trt.TensorFormat.LINEAR:
            raise BackendError(f"{name} has a layout of its own. Build with linear inputs and outputs.")
        address = self._cuda.allocate(math.prod(shape) * np.dtype(dtype).itemsize)
        self._closing.callback(self._cuda.free, address)
        if not self._context.set_tensor_address(name, address):
            raise BackendError(f"TensorRT does not take memory for {name}: {self._last_errors()}")
        return Tensor(name, is_input, dtype, shape, address)

    def _prepare(self) -> None:
        """Run it, see whether its launches matter, and capture a graph of as many inferences as make a lap."""
        laps = [self.lap() for _ in range(2 * SETTLE)][SETTLE:]
        self.plain_launch_bound = is_launch_bound(laps)
        if not self._settings.flush_bytes:  # of several inferences only the first would find the cache cold
            self.launches = launches_for(median(lap.gpu_ms for lap in laps))
        if not self._settings.graph:
            return
        if hasattr(self._trt, "IRuntimeCache"):
            self.can_graph = self.graph = True
            return
        try:
            self._captured = self._cuda.capture(self._enqueue_all, self._stream)
        except BackendError as error:
            self.remarks.append(f"no CUDA graph could be captured, so launches are among the times ({error})")
            return
        self._closing.callback(self._cuda.close_graph, self._captured)
        self.can_graph = self.graph = True

    def use_graph(self, wanted: bool) -> None:
        """Launch as a graph or not, so that two networks can be compared that were launched the same way.

        Raises:
            BackendError: that cannot be chosen any more.
        """
        if wanted == self.graph:
            return
        if hasattr(self._trt, "IRuntimeCache"):
            raise BackendError(
                "TensorRT for RTX captures graphs by itself, and one of two networks was opened without."
            )
        if wanted and not self.can_graph:
            raise BackendError(f"There is no graph to launch: {'; '.join(self.remarks)}")
        self.graph = wanted

    def run(self) -> None:
        """Run one inference on the inputs in place."""
        self._enqueue()
        self._cuda.wait(self._stream)

    def lap(self) -> Lap:
        """Launch between two events, and wait; times are one inference's."""
        if self._settings.flush_bytes:
            self._cuda.fill(self._flushed, self._settings.flush_bytes, self._stream)
            self._cuda.wait(self._stream)
        launch: Callable[[], object] = self._enqueue_all
        if self._captured is not None and self.graph:
            captured = self._captured
            launch = lambda: self._cuda.launch(captured, self._stream)  # noqa: E731 - a name for either way
        lap: Lap = self._cuda.time(launch, self._stream, self._events)
        return Lap(lap.gpu_ms / self.launches, lap.enqueue_ms / self.launches)

    def outputs(self, feeds: Feeds) -> dict[str, Array]:
        """Run on the inputs given, and return the outputs by name; the inputs stay in place.

        Raises:
            BackendError: inputs are missing or do not fit.
        """
        inputs = {name: item for name, item in self._tensors.items() if item.is_input}
        for name, value in name_feeds(feeds, list(inputs)).items():
            item = inputs[name]
            if tuple(value.shape) != item.shape:
                raise BackendError(f"The engine's {name} is {item.shape}; given was {tuple(value.shape)}.")
            self._cuda.upload(item.address, np.ascontiguousarray(value, dtype=item.dtype), self._stream)
        self.run()
        found: dict[str, Array] = {}
        for name, item in self._tensors.items():
            if not item.is_input:
                found[name] = np.empty(item.shape, item.dtype)
                self._cuda.download(found[name], item.address, self._stream)
        return found

    def inspect(self) -> str:
        """What the engine's inspector says of all layers, as JSON."""
        inspector = self._engine.create_engine_inspector()
        inspector.execution_context = self._context
        return str(inspector.get_engine_information(self._trt.LayerInformationFormat.JSON))

    def profile_into(self, note: Callable[[str, float], None]) -> None:
        """Have each layer's time told after each run, once `report` asks for it."""
        self._profiler = _make_profiler(self._trt, note)
        self._context.profiler = self._profiler
        self._context.enqueue_emits_profile = False

    def report(self) -> None:
        """Have the layers' times of the last run told.

        Raises:
            BackendError: TensorRT does not tell them.
        """
        if not self._context.report_to_profiler():
            raise BackendError(f"TensorRT tells no times of layers: {self._last_errors()}")

    def close(self) -> None:
        """Give everything back, and keep the runtime cache."""
        self._closing.close()
        self._context = self._engine = self._runtime = None

    def _enqueue_all(self) -> None:
        for _ in range(self.launches):
            self._enqueue()

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(int(self._stream)):
            raise BackendError(f"TensorRT cannot run the engine: {self._last_errors()}")

    def _last_errors(self) -> str:
        errors = [record.text for record in self._records if record.severity in ("ERROR", "INTERNAL_ERROR")]
        return "; ".join(dict.fromkeys(errors[-SHOWN_ERRORS:])) or "it says nothing of why"


def _make_profiler(trt: Any, note: Callable[[str, float], None]) -> Any:
    class Recorder(trt.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            note(layer_name, ms)

    return Recorder()
