"""What times on a GPU depend on, free batches, and the way to the point where a GPU is needed."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import onnx
import pytest

from lut.errors import BackendError
from lut.records import MeasureConfig
from profiler.backends.cuda import CudaFacts
from profiler.backends.interface import BuildSettings, Settings
from profiler.backends.tensorrt_rtx import TensorRtRtx
from profiler.backends.trt_common import pin
from profiler.backends.trt_log import make_logger
from profiler.backends.trt_opening import Opener, describe_device, settings_of
from profiler.nvml import GpuFacts, read_gpu
from profiler.progress import silent
from profiler.worker_client import WorkerClient
from tests.profiler.networks import write_conv_net

trt = pytest.importorskip("tensorrt_rtx")
without_a_gpu = pytest.mark.skipif(read_gpu() is not None, reason="there is a GPU")

CUDA = CudaFacts(128, 72 * 2**20, "8.9", "0000:01:00.0", "13.0, runtime 13.5")
GPU = GpuFacts("NVIDIA GeForce RTX 4090", "580.65", "8.9", 2520.0, 450.0, False, None, False)


def opener() -> Opener:
    return Opener("tensorrt-rtx", trt, lambda *_: pytest.fail("nothing is built here"), lambda _: None, "tensorrt_rtx")


def new_config() -> Any:
    config = trt.Builder(make_logger(trt, [])).create_builder_config()
    pin(trt, config, BuildSettings())
    return config


def test_settings_are_read_from_the_builder_itself_and_follow_it() -> None:
    config = new_config()
    found = dict(settings_of(trt, config))
    assert found["tf32"] is False
    assert found["sparse_weights"] is False
    assert found["version_compatible"] is False
    assert found["max_aux_streams"] == 0
    changes: dict[str, Any] = {
        "tf32": lambda: config.set_flag(trt.BuilderFlag.TF32),
        "sparse_weights": lambda: config.set_flag(trt.BuilderFlag.SPARSE_WEIGHTS),
        "max_aux_streams": lambda: setattr(config, "max_aux_streams", 2),
        "optimisation_level": lambda: setattr(config, "builder_optimization_level", 5),
        "workspace_bytes": lambda: config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, 2**28),
    }
    for name, change in changes.items():
        before = dict(settings_of(trt, config))
        change()
        after = dict(settings_of(trt, config))
        assert {key for key in after if after[key] != before[key]} == {name}


@pytest.mark.parametrize(
    ("where", "change"),
    [
        *[("cuda", change) for change in ({"multiprocessors": 64}, {"cache_bytes": 1}, {"cuda": "14.0"})],
        *[("gpu", change) for change in ({"ecc": True}, {"mig": True}, {"mps": True}, {"power_mode": "2 MODE_30W"})],
        *[("gpu", change) for change in ({"driver": "590"}, {"power_limit_w": 300.0}, {"name": "RTX 4090 D"})],
    ],
)
def test_anything_that_changes_a_time_changes_the_fingerprint(where: str, change: dict[str, Any]) -> None:
    built = settings_of(trt, new_config())
    before = describe_device(opener(), CUDA, GPU, None, built)
    cuda = replace(CUDA, **change) if where == "cuda" else CUDA
    gpu = replace(GPU, **change) if where == "gpu" else GPU
    after = describe_device(opener(), cuda, gpu, None, built)
    assert after.key != before.key
    assert describe_device(opener(), CUDA, GPU, 2520.0, built).key != before.key
    assert dict(before.settings)["cuda_graph"] is True


def test_a_gpu_that_tells_nothing_of_itself_has_a_fingerprint_all_the_same() -> None:
    found = describe_device(opener(), CUDA, None, None, ())
    assert (found.compute_capability, found.driver, found.power_limit_w) == ("8.9", None, None)
    assert found == type(found).from_json(found.to_json())


def test_what_is_reproduced_is_the_file_that_was_timed() -> None:
    assert opener().source(Path("a.engine")) == ["--loadEngine=a.engine"]
    assert "--noTF32" in opener().source(Path("a.onnx"))


@without_a_gpu
@pytest.mark.parametrize("kind", ["time", "nodes", "fingerprint"])
def test_without_a_gpu_the_worker_says_so(kind: str, tmp_path: Path) -> None:
    network = write_conv_net(tmp_path / "network.onnx", linear=False)
    with WorkerClient("tensorrt-rtx") as worker:
        if kind == "fingerprint":
            with pytest.raises(BackendError, match="needs a GPU"):
                worker.fingerprint()
        else:
            reply = getattr(worker, kind)(network, MeasureConfig())
            assert reply.failure is not None
            assert "needs a GPU" in reply.failure


@pytest.fixture
def free_batch(tmp_path: Path) -> Path:
    path = write_conv_net(tmp_path / "network.onnx", linear=False)
    model = onnx.load(path)
    for item in (*model.graph.input, *model.graph.output):
        item.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.save(model, path)
    return path


def test_a_free_batch_is_built_for_the_batches_asked_for(free_batch: Path, tmp_path: Path) -> None:
    report = TensorRtRtx().build(free_batch, tmp_path / "a.engine", BuildSettings(("8.6",), batches=(1, 4, 8)))
    smaller = TensorRtRtx().build(free_batch, tmp_path / "b.engine", BuildSettings(("8.6",), batches=(1, 4, 4)))
    assert report.activation_bytes is not None
    assert smaller.activation_bytes is not None
    assert report.activation_bytes > smaller.activation_bytes


@pytest.mark.parametrize(
    ("batches", "words"), [(None, "say the least"), ((4, 2, 8), "from the least"), ((0, 1, 1), "from the least")]
)
def test_a_free_batch_without_sensible_batches_is_refused(
    free_batch: Path, tmp_path: Path, batches: tuple[int, int, int] | None, words: str
) -> None:
    with pytest.raises(BackendError, match=words):
        TensorRtRtx().build(free_batch, tmp_path / "a.engine", BuildSettings(("8.6",), batches=batches))


def test_progress_is_no_part_of_what_settings_are() -> None:
    for kind in (Settings, BuildSettings):
        assert {item.name for item in fields(kind)} >= {"progress"}
        assert kind(progress=print) == kind(progress=silent)
