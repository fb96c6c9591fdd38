"""A run exported for several batches: one engine, three shapes, and figures that say which batch they are for."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from lut.errors import LatpruneError
from profiler.backends import get_backend
from profiler.backends.onnxruntime_plain import PlainSession
from profiler.free_batch import to_free_batch
from pruner.deploy import ExportConfig, export_run
from pruner.engine_file import random_feeds
from pruner.free_batch import free_batch, spread
from pruner.main import app
from pruner.plan import PrunePlan
from pruner.rundir import save
from pruner.task import Task

RTX = pytest.mark.skipif(not get_backend("tensorrt-rtx").status().installed, reason="tensorrt-rtx is not installed")
BATCHES = (1, 2, 5)
pytest.importorskip("onnxruntime")


class Small(nn.Module):
    """A convolution, pooling and a linear layer; `odd` makes a batch of one something else."""

    def __init__(self, odd: bool = False) -> None:
        super().__init__()
        self.conv, self.head, self.odd = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 4), odd

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).relu().mean((2, 3))
        found: Tensor = self.head(x * 2 if self.odd and x.shape[0] == 1 else x)
        return found


def build(odd: bool = False) -> nn.Module:
    torch.manual_seed(0)
    return Small(odd).eval()


def batches() -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        yield torch.randn(4, 3, 8, 8, generator=generator)


TASK = Task(
    "small",
    build,
    lambda: (torch.zeros(2, 3, 8, 8),),
    train_batches=batches,
    loss=lambda model, batch: model(batch).sum(1),
    evaluate=lambda model: {"sum": float(torch.cat([model(batch).detach() for batch in batches()]).sum())},
)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    save(build(), PrunePlan("hash", {}, {}, {}), folder, inputs=TASK.inputs())
    (folder / "result.json").write_text(json.dumps({"after": {"predicted_ms": 1.5, "measured_ms": 1.6}}))
    return folder


@pytest.fixture
def run(tmp_path: Path, written: Path) -> Path:
    return shutil.copytree(written, tmp_path / "run")


@pytest.fixture(scope="module", autouse=True)
def exported_once() -> Iterator[None]:
    """PyTorch's exporter takes seconds; the network is the same each time."""
    made: dict[bool, onnx.ModelProto] = {}

    def once(part: Small, *args: Any) -> onnx.ModelProto:
        if part.odd not in made:
            made[part.odd] = to_free_batch(part, *args)
        return made[part.odd]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pruner.free_batch.to_free_batch", once)
        yield


def sidecar(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.with_name(path.name + ".json").read_text())
    return found


@RTX
@pytest.mark.parametrize(
    ("precision", "capabilities"),
    [("fp32", ("7.5",)), ("fp16", ("8.6", "12.0")), ("int8", ("8.9",))],
)
def test_an_engine_for_several_batches_is_built_without_a_gpu(
    run: Path, precision: Any, capabilities: tuple[str, ...]
) -> None:
    config = ExportConfig(precision, compute_capabilities=capabilities, task=TASK, batches=BATCHES, accuracy=False)
    report = export_run(run, backend="tensorrt-rtx", config=config)
    told = sidecar(report.path)
    assert told["batch"]["shapes"]["x"] == {"min": [1, 3, 8, 8], "opt": [2, 3, 8, 8], "max": [5, 3, 8, 8]}
    assert told["inputs"][0]["shape"] == [-1, 3, 8, 8]
    assert max(told["batch"]["differs_from_pytorch_by"].values()) <= 1e-4
    assert told["memory_by_batch"]["max"] == told["ahead_of_time_bound"]
    most, best = (told["memory_by_batch"][name]["activation_bytes"] for name in ("max", "opt"))
    assert 0 < best <= most
    assert told["io_bytes"] == 4 * (2 * 3 * 8 * 8 + 2 * 4)
    assert told["predicted_ms"] == 1.5
    assert random_feeds(report.path.with_name(told["onnx"]), told["batch"]["opt"])["x"].shape == (2, 3, 8, 8)


def test_a_converted_file_is_compared_at_all_three_and_judged_by_the_task_at_the_best(run: Path) -> None:
    config = ExportConfig("int8", task=TASK, batches=(1, 3, 5))
    report = export_run(run, backend="onnxruntime", config=config)
    session = PlainSession(report.path.read_bytes())
    for size in (1, 3, 5):
        (output,) = session.outputs([np.zeros((size, 3, 8, 8), np.float32)]).values()
        assert output.shape == (size, 4)
    told = sidecar(report.path)
    assert 0 < told["accuracy"]["difference"] < 0.2
    assert told["accuracy"]["after"]["sum"] == pytest.approx(told["accuracy"]["before"]["sum"], rel=0.2)
    assert told["predicted_ms"] is told["measured_ms"] is None
    assert any("a batch of 2" in note for note in told["notes"])


def test_a_network_that_does_something_else_at_one_of_the_batches_is_refused(run: Path) -> None:
    odd = replace(TASK, model=lambda: build(odd=True))
    with pytest.raises(LatpruneError, match=r"differs from PyTorch by .* at a batch of 1"):
        free_batch(run, odd, BATCHES)


def test_a_network_that_does_not_run_at_one_of_the_batches_is_refused_with_its_own_words(run: Path) -> None:
    class Picky(Small):
        def forward(self, x: Tensor) -> Tensor:
            if x.shape[0] > 4:
                raise RuntimeError("four at most")
            return super().forward(x)

    with pytest.raises(LatpruneError, match=r"does not run on a batch of 5 \(RuntimeError: four at most\)"):
        free_batch(run, replace(TASK, model=lambda: Picky().eval()), BATCHES)


def test_runs_at_other_batches_are_put_together_from_samples_in_turn() -> None:
    feeds = [{"x": np.array([[0], [1]]), "table": np.ones(3)}, {"x": np.array([[2], [3]]), "table": np.ones(3)}]
    found = spread(feeds, (1, 2, 6), ["x"])
    assert [feed["x"].ravel().tolist() for feed in found] == [[0], [0, 1], [0, 1, 2, 3, 0, 1]]
    assert all(feed["table"].shape == (3,) for feed in found)


@pytest.mark.parametrize("text", ["8", "1:2", "4:2:8", "0:1:2", "a:b:c"])
def test_batches_that_are_none_are_refused_before_anything_is_done(text: str) -> None:
    refused = CliRunner().invoke(app, ["export", "missing", "--backend", "onnxruntime", "--batch", text])
    assert refused.exit_code == 2
    assert "such as 1:8:32" in " ".join(refused.stderr.split())


def test_bf16_is_refused_before_the_run_is_looked_for() -> None:
    refused = CliRunner().invoke(app, ["export", "missing", "--backend", "onnxruntime", "--precision", "bf16"])
    assert refused.exit_code == 2
    assert "does not parse bf16" in " ".join(refused.stderr.split())
    with pytest.raises(LatpruneError, match="bf16 is not offered"):
        export_run(Path("missing"), backend="onnxruntime", config=ExportConfig("bf16"))
