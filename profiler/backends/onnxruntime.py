"""ONNX Runtime on the CPU: runs networks anywhere, and tells what each node of them costs in place."""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lut.errors import BackendError
from lut.records import Attribute, DeviceFingerprint
from profiler.backends.inputs import name_feeds, random_inputs
from profiler.backends.interface import Array, BackendStatus, BuildReport, BuildSettings, Feeds, NodeTime, Settings
from profiler.backends.onnxruntime_nodes import join_profile, read_kernels
from profiler.backends.onnxruntime_providers import CPU, Provider, mixed_up, open_session
from profiler.device import affinity, read_cpu

INSTALL = 'pip install "latprune[onnxruntime]"'
PROVIDER = CPU.name
ERRORS_ONLY = 3
WARNINGS = 2
"""Of what severity on ONNX Runtime's own code speaks; the latter is its default."""
RUN_SETTINGS: tuple[Attribute, ...] = (
    ("execution", "sequential"),
    ("inter_op_threads", 1),
    ("optimisation", "all"),
    ("provider", PROVIDER),
)
"""What `_options` sets and a fingerprint records."""

DTYPES: Mapping[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(bool)": np.bool_,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}


class OnnxRuntime:
    """The backend `onnxruntime`; the runtime is imported when first used."""

    name = "onnxruntime"

    def status(self) -> BackendStatus:
        """Whether it can be used here; never raises."""
        try:
            runtime = import_runtime()
        except BackendError as error:
            return BackendStatus(self.name, False, None, (), str(error))
        return BackendStatus(self.name, True, str(runtime.__version__), ("measures", "times nodes"), mixed_up())

    def fingerprint(self, threads: int) -> DeviceFingerprint:
        """This processor and ONNX Runtime's version and settings."""
        cpu = read_cpu()
        extra: tuple[Attribute, ...] = (("affinity", affinity()), ("processor", cpu.stepping))
        return DeviceFingerprint(
            device=cpu.name,
            runtime=self.name,
            runtime_version=str(import_runtime().__version__),
            threads=threads,
            settings=tuple(sorted(RUN_SETTINGS + extra)),
        )

    def open(self, path: Path, settings: Settings) -> "OrtSession":
        """Load an ONNX file to be timed and run."""
        return OrtSession(path, settings)

    def open_profiled(self, path: Path, settings: Settings) -> "OrtProfiledSession":
        """Load an ONNX file so that each of its nodes is timed."""
        return OrtProfiledSession(path, settings)

    def kernels(self, path: Path, settings: Settings) -> list[NodeTime]:
        """Compile, run nothing, and return the nodes of the optimised graph."""
        with tempfile.TemporaryDirectory(prefix="latprune-", ignore_cleanup_errors=True) as folder:
            options = _options(settings.threads)
            optimised = _write_optimised(options, Path(folder))
            _load(path, options)
            return read_kernels(optimised, path)

    def build(self, path: Path, out: Path, settings: BuildSettings) -> BuildReport:
        """Refuse: ONNX Runtime runs ONNX files as they are."""
        raise BackendError("ONNX Runtime runs ONNX files as they are; there is no engine to build. Use the ONNX file.")


class OrtSession:
    """A network loaded, with random inputs bound in place (the same for the same seed)."""

    def __init__(self, path: Path, settings: Settings, provider: Provider = CPU) -> None:
        self._session = _load(path, _options(settings.threads), provider)
        self._inputs = [(item.name, _dtype(item), _shape(item)) for item in self._session.get_inputs()]
        self._binding = _bind(self._session, random_inputs(self._inputs, settings.seed), provider.memory)

    def run(self) -> None:
        """Run one inference on the inputs in place."""
        self._session.run_with_iobinding(self._binding)

    def outputs(self, feeds: Feeds) -> dict[str, Array]:
        """Run on the inputs given, and return the outputs by name.

        Raises:
            BackendError: inputs are missing or do not fit.
        """
        named = name_feeds(feeds, [name for name, _, _ in self._inputs])
        names = [item.name for item in self._session.get_outputs()]
        try:
            values = self._session.run(names, named)
        except runtime_errors() as error:
            raise BackendError(f"ONNX Runtime cannot run the network on these inputs: {error}") from error
        return {name: np.asarray(value) for name, value in zip(names, values, strict=True)}

    def close(self) -> None:
        """Give everything back."""
        del self._binding, self._session


class OrtProfiledSession:
    """A session that notes the kernel time of every node of the optimised graph.

    The optimised graph is written beside the profile, its weights apart (they are not read back), and both are joined.
    """

    def __init__(self, path: Path, settings: Settings) -> None:
        self._path = path
        self._folder = tempfile.TemporaryDirectory(prefix="latprune-", ignore_cleanup_errors=True)
        self._session: Any = None
        folder = Path(self._folder.name)
        options = _options(settings.threads)
        options.enable_profiling = True
        options.profile_file_prefix = str(folder / "profile")
        self._optimised = _write_optimised(options, folder)
        try:
            self._session = _load(path, options)
            inputs = [(item.name, _dtype(item), _shape(item)) for item in self._session.get_inputs()]
            self._binding = _bind(self._session, random_inputs(inputs, settings.seed))
        except BaseException:
            self.close()
            raise

    def run(self) -> None:
        """Run one inference; its number is its place among the calls of this method."""
        self._session.run_with_iobinding(self._binding)

    def finish(self, keep: Sequence[int]) -> list[NodeTime]:
        """Stop, and return the optimised graph's nodes with their times in the runs to keep.

        Raises:
            BackendError: profile and graph cannot be joined (control flow).
        """
        profile = Path(self._session.end_profiling())
        return join_profile(profile, self._optimised, self._path, keep)

    def close(self) -> None:
        """Give everything back, temporary files too."""
        self._binding = self._session = None
        self._folder.cleanup()


def import_runtime() -> Any:
    """Import ONNX Runtime, whichever of its packages is installed.

    Raises:
        BackendError: none is.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise BackendError(f"ONNX Runtime is not installed ({error}). Install it: {INSTALL}") from error
    return onnxruntime


@contextlib.contextmanager
def saying_only_errors() -> Iterator[None]:
    """What ONNX Runtime's own code warns of is not said meanwhile.

    Raises:
        BackendError: it is not installed.
    """
    runtime = import_runtime()
    runtime.set_default_logger_severity(ERRORS_ONLY)
    try:
        yield
    finally:
        runtime.set_default_logger_severity(WARNINGS)


def runtime_errors() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises; its own exceptions have no common parent below `Exception`."""
    state = import_runtime().capi.onnxruntime_pybind11_state
    own = [getattr(state, name) for name in dir(state)]
    return (*(kind for kind in own if isinstance(kind, type) and issubclass(kind, Exception)), RuntimeError, ValueError)


def _options(threads: int) -> Any:
    runtime = import_runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = ERRORS_ONLY
    return options


def _write_optimised(options: Any, folder: Path) -> Path:
    """Have the optimised graph written, its weights apart; returns where."""
    path = folder / "optimised.onnx"
    options.optimized_model_filepath = str(path)
    weights = "session.optimized_model_external_initializers_"
    options.add_session_config_entry(f"{weights}file_name", "weights.bin")
    options.add_session_config_entry(f"{weights}min_size_in_bytes", "1024")
    return path


def _load(path: Path, options: Any, provider: Provider = CPU) -> Any:
    if not path.is_file():
        raise BackendError(f"There is no file {path}.")
    try:
        return open_session(import_runtime(), str(path), options, provider)
    except runtime_errors() as error:
        raise BackendError(f"ONNX Runtime cannot load {path}: {error}") from error


def _bind(session: Any, feeds: Mapping[str, Array], memory: str = CPU.memory) -> Any:
    """Bind inputs once, and outputs to memory that is allocated once, by a first run."""
    runtime = import_runtime()
    binding = session.io_binding()
    for name, value in feeds.items():
        binding.bind_ortvalue_input(name, runtime.OrtValue.ortvalue_from_numpy(value, memory, 0))
    for item in session.get_outputs():
        binding.bind_output(item.name, memory)
    try:
        session.run_with_iobinding(binding)
    except runtime_errors() as error:
        raise BackendError(f"ONNX Runtime cannot run the network: {error}") from error
    return binding


def _dtype(item: Any) -> type[np.generic]:
    if item.type not in DTYPES:
        raise BackendError(f"The input {item.name} is a {item.type}; known are {', '.join(DTYPES)}.")
    return DTYPES[item.type]


def _shape(item: Any) -> tuple[int, ...]:
    if any(not isinstance(size, int) for size in item.shape):
        raise BackendError(
            f"The input {item.name} has no fixed shape: {item.shape}. Export the network with fixed shapes."
        )
    return tuple(item.shape)
