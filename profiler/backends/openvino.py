"""OpenVINO on the CPU: another runtime that runs networks anywhere, and tells what each node of them costs in place."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from lut.errors import BackendError
from lut.records import Attribute, DeviceFingerprint
from profiler.backends.inputs import name_feeds, random_inputs
from profiler.backends.interface import Array, BackendStatus, BuildReport, BuildSettings, Feeds, NodeTime, Settings
from profiler.backends.openvino_graph import read_graph, read_operations
from profiler.backends.openvino_nodes import to_times
from profiler.device import affinity, read_cpu

INSTALL = 'pip install "latprune[openvino]"'
DEVICE = "CPU"
TELEMETRY = "openvino_telemetry"
CONFIG: Mapping[str, str | bool] = {
    "ENABLE_CPU_PINNING": False,
    "INFERENCE_PRECISION_HINT": "f32",
    "NUM_STREAMS": "1",
    "PERFORMANCE_HINT": "LATENCY",
}
"""What networks are compiled with, and a fingerprint records.

Left alone, OpenVINO computes in bfloat16 where the processor can, and binds its threads to the first cores, where those
of two processes meet.
"""
MICROSECOND = timedelta(microseconds=1)
SINK = "/sink_port_0"
"""What the ONNX reader adds to the name of an output."""

DTYPES: Mapping[str, type[np.generic]] = {
    "f32": np.float32,
    "f64": np.float64,
    "f16": np.float16,
    "boolean": np.bool_,
    "u8": np.uint8,
    "i8": np.int8,
    "i32": np.int32,
    "i64": np.int64,
}


class OpenVino:
    """The backend `openvino`; the runtime is imported when first used."""

    name = "openvino"

    def status(self) -> BackendStatus:
        """Whether it can be used here; never raises."""
        try:
            runtime = _runtime()
        except BackendError as error:
            return BackendStatus(self.name, False, None, (), str(error))
        return BackendStatus(self.name, True, _version(runtime), ("measures", "times nodes"))

    def fingerprint(self, threads: int) -> DeviceFingerprint:
        """This processor and OpenVINO's version and settings."""
        cpu = read_cpu()
        settings: list[Attribute] = [(name.lower(), value) for name, value in CONFIG.items()]
        settings += [("affinity", affinity()), ("device", DEVICE), ("processor", cpu.stepping)]
        return DeviceFingerprint(
            device=cpu.name,
            runtime=self.name,
            runtime_version=_version(_runtime()),
            threads=threads,
            settings=tuple(sorted(settings)),
        )

    def open(self, path: Path, settings: Settings) -> "OpenVinoSession":
        """Load an ONNX file to be timed and run."""
        return OpenVinoSession(path, settings)

    def open_profiled(self, path: Path, settings: Settings) -> "OpenVinoProfiledSession":
        """Load an ONNX file so that each of its nodes is timed."""
        return OpenVinoProfiledSession(path, settings)

    def kernels(self, path: Path, settings: Settings) -> list[NodeTime]:
        """Compile, run nothing, and return the nodes that would run."""
        model = _read(path)
        compiled = _compile(model, path, settings.threads)
        return to_times(read_graph(compiled.get_runtime_model()), read_operations(model), {}, ())

    def build(self, path: Path, out: Path, settings: BuildSettings) -> BuildReport:
        """Refuse: OpenVINO runs ONNX files as they are."""
        raise BackendError("OpenVINO runs ONNX files as they are; there is no engine to build. Use the ONNX file.")


class OpenVinoSession:
    """A network compiled, with random inputs in the runtime's own memory (the same for the same seed)."""

    def __init__(self, path: Path, settings: Settings) -> None:
        model = _read(path)
        self._inputs = _inputs(model)
        self._outputs = [result.get_friendly_name().removesuffix(SINK) for result in model.get_results()]
        self._compiled = _compile(model, path, settings.threads)
        self._request = _request(self._compiled, self._inputs, settings.seed)

    def run(self) -> None:
        """Run one inference on the inputs in place."""
        self._request.infer(share_outputs=True)

    def outputs(self, feeds: Feeds) -> dict[str, Array]:
        """Run on the inputs given, and return the outputs by name.

        Raises:
            BackendError: inputs are missing or do not fit.
        """
        named = name_feeds(feeds, [name for name, _, _ in self._inputs])
        for name, dtype, shape in self._inputs:
            value = np.asarray(named[name])
            if value.dtype != dtype or value.shape != shape:
                raise BackendError(
                    f"OpenVINO cannot run the network on these inputs: {name} is {np.dtype(dtype)} {shape}, not "
                    f"{value.dtype} {value.shape}."
                )
        request = self._compiled.create_infer_request()
        try:
            values = request.infer({place: named[name] for place, (name, _, _) in enumerate(self._inputs)})
        except _runtime_errors() as error:
            raise BackendError(f"OpenVINO cannot run the network on these inputs: {error}") from error
        return {name: np.array(values[place]) for place, name in enumerate(self._outputs)}

    def close(self) -> None:
        """Give everything back."""
        del self._request, self._compiled


class OpenVinoProfiledSession:
    """A session that notes the time of every node of the graph that runs, after each run."""

    def __init__(self, path: Path, settings: Settings) -> None:
        model = _read(path)
        self._given = read_operations(model)
        self._compiled: Any = _compile(model, path, settings.threads, profiled=True)
        self._request: Any = _request(self._compiled, _inputs(model), settings.seed)
        self._nodes = read_graph(self._compiled.get_runtime_model())
        self._shown = [self._request.get_profiling_info()]

    def run(self) -> None:
        """Run one inference; its number is its place among the calls of this method."""
        self._request.infer(share_outputs=True)
        self._shown.append(self._request.get_profiling_info())

    def finish(self, keep: Sequence[int]) -> list[NodeTime]:
        """Stop, and return the nodes that run with their times in the runs to keep.

        The runtime tells means of all runs so far, from which single runs are told apart as far as they can be: the
        samples of a node scatter less than its runs did.
        """
        counters: dict[str, list[int]] = {}
        for shown in self._shown:
            for node in shown:
                counters.setdefault(node.node_name, []).append(node.real_time // MICROSECOND)
        return to_times(self._nodes, self._given, counters, [number + 1 for number in keep])

    def close(self) -> None:
        """Give everything back."""
        self._request = self._compiled = None
        self._shown = []


def _runtime() -> Any:
    try:
        with _silenced():
            import openvino
    except (ImportError, OSError) as error:
        raise BackendError(f"OpenVINO is not installed ({error}). Install it: {INSTALL}") from error
    return openvino


@contextmanager
def _silenced() -> Iterator[None]:
    """Hide OpenVINO's telemetry while it is imported: it would send a report of every import (2026.4 did)."""
    if TELEMETRY in sys.modules:
        yield
        return
    sys.modules[TELEMETRY] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[TELEMETRY]


def _version(runtime: Any) -> str:
    """The release ("2026.4.1"), without the numbers of its build."""
    return str(runtime.__version__).partition("-")[0]


def _runtime_errors() -> tuple[type[Exception], ...]:
    """What OpenVINO raises; its readers' exceptions have no common parent below `Exception`."""
    own = [kind for kind in vars(_runtime().frontend).values() if isinstance(kind, type)]
    return (*(kind for kind in own if issubclass(kind, Exception)), RuntimeError, ValueError, TypeError)


def _read(path: Path) -> Any:
    if not path.is_file():
        raise BackendError(f"There is no file {path}.")
    core = _runtime().Core()
    core.set_property({"ENABLE_MMAP": False})
    try:
        return core.read_model(str(path))
    except _runtime_errors() as error:
        raise BackendError(f"OpenVINO cannot load {path}: {error}") from error


def _compile(model: Any, path: Path, threads: int, *, profiled: bool = False) -> Any:
    _inputs(model)
    more = {"INFERENCE_NUM_THREADS": threads, "PERF_COUNT": profiled}
    try:
        return _runtime().Core().compile_model(model, DEVICE, {**CONFIG, **more})
    except _runtime_errors() as error:
        raise BackendError(f"OpenVINO cannot compile {path}: {error}") from error


def _request(compiled: Any, inputs: Sequence[tuple[str, type[np.generic], tuple[int, ...]]], seed: int) -> Any:
    """Make a request with its inputs in place, and run it once, so that its outputs have their memory too."""
    request = compiled.create_infer_request()
    made = random_inputs(inputs, seed)
    try:
        for place, (name, _, _) in enumerate(inputs):
            request.get_input_tensor(place).data[...] = made[name]
        request.infer(share_outputs=True)
    except _runtime_errors() as error:
        raise BackendError(f"OpenVINO cannot run the network: {error}") from error
    return request


def _inputs(model: Any) -> list[tuple[str, type[np.generic], tuple[int, ...]]]:
    """Name, type and shape of each input.

    Raises:
        BackendError: an input's shape is not fixed, or its type is not known.
    """
    found = []
    for parameter in model.get_parameters():
        name = parameter.get_friendly_name()
        shape, kind = parameter.get_partial_shape(), parameter.get_element_type().get_type_name()
        if shape.is_dynamic:
            raise BackendError(f"The input {name} has no fixed shape: {shape}. Export the network with fixed shapes.")
        if kind not in DTYPES:
            raise BackendError(f"The input {name} is a {kind}; known are {', '.join(DTYPES)}.")
        found.append((name, DTYPES[kind], tuple(shape.to_shape())))
    return found
