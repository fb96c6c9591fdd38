"""Opens an ONNX file or an engine with either TensorRT on the GPU that is here, and tells what such times depend on.

The module is an argument; this file imports neither.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lut.records import Attribute, DeviceFingerprint
from profiler.backends.cuda import CudaFacts, flush_bytes, open_cuda
from profiler.backends.interface import BuildReport, BuildSettings, NodeTime, Settings
from profiler.backends.trt_common import pin
from profiler.backends.trt_log import make_logger
from profiler.backends.trt_nodes import GivenNode, join, read_inspector
from profiler.backends.trt_profiled import ProfiledEngine
from profiler.backends.trt_session import EngineSession, LaunchSettings
from profiler.gpu_watch import GpuWatch
from profiler.nvml import Gpu, GpuFacts, open_gpu
from profiler.progress import Progress

QUANTITY = "GPU compute time of one inference, single-shot"
RUNTIME_CACHE, TIMING_CACHE = ".runtime-cache", ".timing-cache"
"""What the caches beside a table are called: its name, and one of these."""


@dataclass(frozen=True)
class Opener:
    """How one of the two modules opens networks.

    Attributes:
        name: the backend's.
        trt: the module.
        build: compiles an ONNX file for the GPU that is here, with the timing cache at a path (or none).
        configure: sets on a builder's configuration what only this module has.
        tool: NVIDIA's command that times engines of this module.
    """

    name: str
    trt: Any
    build: Callable[[Path, Path, Path | None, Progress], BuildReport]
    configure: Callable[[Any], None]
    tool: str

    def open(self, path: Path, settings: Settings) -> EngineSession:
        """Load an ONNX file (compiled first) or an engine to be timed and run."""
        cuda = open_cuda()
        launch = LaunchSettings(
            settings.seed,
            cache=_beside(settings.cache, RUNTIME_CACHE),
            flush_bytes=flush_bytes(cuda.facts()) if settings.cold else 0,
        )
        session = EngineSession(self.trt, self.read(path, settings), cuda, launch)
        session.reproduced_by = (self.tool, *self.source(path))
        return session

    def open_profiled(self, path: Path, settings: Settings) -> ProfiledEngine:
        """Load an ONNX file so that each of its layers is timed."""
        cuda = open_cuda()
        describe = partial(describe_layers, path)
        return ProfiledEngine(self.trt, self.read(path, settings), cuda, LaunchSettings(settings.seed), describe)

    def list_nodes(self, path: Path, settings: Settings) -> list[NodeTime]:
        """Compile an ONNX file, and tell its layers without times."""
        open_cuda()
        runtime = self.trt.Runtime(make_logger(self.trt, []))
        engine = runtime.deserialize_cuda_engine(self.read(path, settings))
        text = engine.create_engine_inspector().get_engine_information(self.trt.LayerInformationFormat.JSON)
        return describe_layers(path, str(text), {})

    def read(self, path: Path, settings: Settings) -> bytes:
        """The engine: the file itself, or what an ONNX file is compiled to."""
        if path.suffix != ".onnx":
            return path.read_bytes()
        with tempfile.TemporaryDirectory(prefix="latprune-") as folder:
            out = Path(folder) / "network.engine"
            self.build(path, out, _beside(settings.cache, TIMING_CACHE), settings.progress)
            return out.read_bytes()

    def source(self, path: Path) -> list[str]:
        """What NVIDIA's tool has to be told to run the same."""
        if path.suffix != ".onnx":
            return [f"--loadEngine={path}"]
        return [f"--onnx={path}", "--stronglyTyped", "--noTF32", f"--maxAuxStreams={BuildSettings().max_aux_streams}"]

    def fingerprint(self) -> DeviceFingerprint:
        """This GPU and all that changes an engine or its times.

        Raises:
            BackendError: there is no GPU.
        """
        cuda = open_cuda().facts()
        builder = self.trt.Builder(make_logger(self.trt, []))
        config = builder.create_builder_config()
        pin(self.trt, config, BuildSettings())
        self.configure(config)
        with open_gpu(cuda.pci_bus_id) as gpu:
            told = gpu.facts() if isinstance(gpu, Gpu) else gpu
            locked = look(gpu) if isinstance(gpu, Gpu) else None
        facts = told if isinstance(told, GpuFacts) else None
        return describe_device(self, cuda, facts, locked, settings_of(self.trt, config))


def look(gpu: Gpu) -> float | None:
    """The clock that somebody locked the GPU to, in MHz, or None."""
    watch = GpuWatch(gpu.read)
    watch.begin()
    return watch.end().locked_clocks_mhz


def settings_of(trt: Any, config: Any) -> tuple[Attribute, ...]:
    """Read from a builder's configuration what changes an engine, so that a new default is seen too."""
    flags = trt.BuilderFlag
    return (
        ("avg_timing_iterations", int(config.avg_timing_iterations)),
        ("hardware_compatibility", str(config.hardware_compatibility_level.name)),
        ("max_aux_streams", int(config.max_aux_streams)),
        ("optimisation_level", int(config.builder_optimization_level)),
        ("sparse_weights", bool(config.get_flag(flags.SPARSE_WEIGHTS))),
        ("tf32", bool(config.get_flag(flags.TF32))),
        ("version_compatible", bool(config.get_flag(flags.VERSION_COMPATIBLE))),
        ("workspace_bytes", int(config.get_memory_pool_limit(trt.MemoryPoolType.WORKSPACE))),
    )


def describe_device(
    opener: Opener, cuda: CudaFacts, gpu: GpuFacts | None, locked_mhz: float | None, built_with: Sequence[Attribute]
) -> DeviceFingerprint:
    """Put together what times on a GPU depend on; what the GPU does not tell is left out."""
    told: Mapping[str, Any] = {
        "cache": "kept beside the table",
        "cuda": cuda.cuda,
        "cuda_graph": True,
        "ecc": None if gpu is None else gpu.ecc,
        "l2_bytes": cuda.cache_bytes,
        "l2_state": "warm",
        "mig": None if gpu is None else gpu.mig,
        "mps": None if gpu is None else gpu.mps,
        "multiprocessors": cuda.multiprocessors,
        "power_mode": None if gpu is None else gpu.power_mode,
        "quantity": QUANTITY,
    }
    settings = [*built_with, *((name, value) for name, value in told.items() if value is not None)]
    return DeviceFingerprint(
        device=f"GPU of compute capability {cuda.compute_capability}" if gpu is None else gpu.name,
        runtime=opener.name,
        runtime_version=str(opener.trt.__version__),
        compute_capability=cuda.compute_capability,
        driver=(gpu.driver or None) if gpu is not None else None,
        locked_clocks_mhz=locked_mhz,
        power_limit_w=None if gpu is None else gpu.power_limit_w,
        settings=tuple(sorted(settings)),
    )


def describe_layers(path: Path, text: str, samples_ms: Mapping[str, Sequence[float]]) -> list[NodeTime]:
    """Join the inspector's words on an engine, its layers' times and the ONNX file that it was built from."""
    layers, _ = read_inspector(text)
    return join(layers, samples_ms, read_nodes(path))


def read_nodes(path: Path) -> list[GivenNode]:
    """The nodes of an ONNX file, in order; its weights are not read."""
    import onnx

    graph = onnx.load(str(path), load_external_data=False).graph
    return [GivenNode(node.name, node.op_type, node.output[0]) for node in graph.node]


def _beside(start: Path | None, ending: str) -> Path | None:
    return None if start is None else start.with_name(start.name + ending)
