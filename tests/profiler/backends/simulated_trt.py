"""A simulated CUDA and a simulated TensorRT, which double their input: they try a session's own steps, nothing else.

No behaviour, time or word of the real ones is claimed here.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from lut.errors import BackendError
from profiler.backends.cuda import CudaFacts
from profiler.gpu_summary import Lap

FACTS = CudaFacts(46, 4 * 2**20, "7.5", "0000:01:00.0", "13.0, runtime 13.5")


class SimulatedCuda:
    """Memory by address, launches recorded while capturing, and nothing that is given back twice."""

    def __init__(self, *, captures: bool = True, gpu_ms: float = 1.0, enqueue_ms: float = 0.01) -> None:
        self.captures, self.gpu_ms, self.enqueue_ms = captures, gpu_ms, enqueue_ms
        self.memory: dict[int, Any] = {}
        self.open: set[str] = set()
        self.made = 0
        self.recording: list[Callable[[], None]] | None = None
        self.filled = 0

    def facts(self) -> CudaFacts:
        return FACTS

    def _make(self, kind: str) -> str:
        self.made += 1
        self.open.add(f"{kind} {self.made}")
        return f"{kind} {self.made}"

    def allocate(self, size_bytes: int) -> int:
        self.made += 1
        self.memory[self.made] = np.zeros(size_bytes, np.uint8)
        return self.made

    def free(self, address: int) -> None:
        del self.memory[address]

    def upload(self, address: int, array: Any, stream: Any) -> None:
        assert array.nbytes == len(self.memory[address])
        self.memory[address][:] = np.frombuffer(array.tobytes(), np.uint8)

    def download(self, array: Any, address: int, stream: Any) -> None:
        array[...] = np.frombuffer(self.memory[address].tobytes(), array.dtype).reshape(array.shape)

    def fill(self, address: int, size_bytes: int, stream: Any) -> None:
        assert size_bytes == len(self.memory[address])
        self.filled += 1

    def make_stream(self) -> int:
        self._make("stream")
        return self.made

    def close_stream(self, stream: int) -> None:
        self.open.remove(f"stream {stream}")

    def make_event(self) -> str:
        return self._make("event")

    def close_event(self, event: str) -> None:
        self.open.remove(event)

    def wait(self, stream: Any) -> None:
        assert f"stream {stream}" in self.open

    def time(self, launch: Callable[[], object], stream: Any, events: tuple[str, str]) -> Lap:
        assert set(events) <= self.open
        self.launched = 0
        launch()
        return Lap(self.gpu_ms * self.launched, self.enqueue_ms * self.launched)

    def capture(self, launch: Callable[[], object], stream: Any) -> Any:
        if not self.captures:
            raise BackendError("operation not permitted when stream is capturing")
        self.recording = []
        launch()
        self.graph, self.recording = self.recording, None
        return self._make("graph")

    def launch(self, graph: str, stream: Any) -> None:
        assert graph in self.open
        for step in self.graph:
            step()

    def close_graph(self, graph: str) -> None:
        self.open.remove(graph)

    def enqueue(self, step: Callable[[], None]) -> None:
        if self.recording is None:
            self.launched = getattr(self, "launched", 0) + 1
            step()
        else:
            self.recording.append(lambda: self.enqueue(step))


class Logger:
    def __init__(self) -> None:
        pass


class Profiler:
    def __init__(self) -> None:
        pass


class Context:
    def __init__(self, engine: "Engine") -> None:
        self.engine, self.addresses, self.shapes = engine, {}, dict(engine.shapes)
        self.profiler: Any = None
        self.enqueue_emits_profile = True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes = dict.fromkeys(self.shapes, shape)
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shapes[name]

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        cuda = self.engine.cuda

        def step() -> None:
            values = np.frombuffer(cuda.memory[self.addresses["x"]].tobytes(), np.float32)
            cuda.memory[self.addresses["y"]][:] = np.frombuffer((2 * values).tobytes(), np.uint8)

        cuda.enqueue(step)
        return self.engine.runs

    def report_to_profiler(self) -> bool:
        if self.profiler is None or self.enqueue_emits_profile:
            return False
        for name, ms in self.engine.layers:
            self.profiler.report_layer_time(name, ms)
        return True


class Engine:
    def __init__(self, cuda: SimulatedCuda, shape: tuple[int, ...], *, dynamic: bool, runs: bool) -> None:
        self.cuda, self.runs, self.optimal = cuda, runs, shape
        free = (-1, *shape[1:]) if dynamic else shape
        self.shapes = {"x": free, "y": free}
        self.num_io_tensors = 2
        self.layers = (("first", 0.25), ("second", 0.75), ("second", 0.5))
        self.text = '{"Layers": []}'

    def get_tensor_name(self, number: int) -> str:
        return "xy"[number]

    def get_tensor_mode(self, name: str) -> str:
        return "input" if name == "x" else "output"

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shapes[name]

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        return [(1, *self.optimal[1:]), self.optimal, (99, *self.optimal[1:])]

    def get_tensor_dtype(self, name: str) -> str:
        return "float"

    def get_tensor_format(self, name: str) -> str:
        return "linear"

    def create_execution_context(self) -> Context:
        return Context(self)

    def create_engine_inspector(self) -> Any:
        return SimpleNamespace(get_engine_information=lambda format: self.text)


def simulated_trt(
    cuda: SimulatedCuda,
    shape: tuple[int, ...] = (2, 3),
    *,
    dynamic: bool = False,
    runs: bool = True,
    loads: bool = True,
) -> Any:
    """A module like classic `tensorrt`, as far as a session uses it."""
    engine = Engine(cuda, shape, dynamic=dynamic, runs=runs) if loads else None

    def runtime(logger: Any) -> Any:
        def deserialize_cuda_engine(blob: bytes) -> Any:
            if engine is None:
                logger.log(SimpleNamespace(name="ERROR"), "the simulated engine is for another GPU")
            return engine

        return SimpleNamespace(deserialize_cuda_engine=deserialize_cuda_engine)

    return SimpleNamespace(
        ILogger=Logger,
        IProfiler=Profiler,
        Runtime=runtime,
        TensorIOMode=SimpleNamespace(INPUT="input", OUTPUT="output"),
        TensorFormat=SimpleNamespace(LINEAR="linear"),
        LayerInformationFormat=SimpleNamespace(JSON="json"),
        nptype=lambda kind: np.float32,
        engine=engine,
    )
