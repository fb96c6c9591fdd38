"""A network whose code must be rewritten is pruned, scored again, saved and loaded like any other."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import pruner
from lut.errors import RunError
from profiler.awake import awaken
from profiler.backends.onnxruntime_plain import evaluate
from profiler.cut import cut, zero
from profiler.export import flat_arrays, largest_difference, output_arrays
from profiler.network import analyze
from profiler.profile import ProfileConfig, profile
from profiler.program_module import ProgramModule
from profiler.trial import find_groups
from pruner.importance.fisher import fisher_scores
from pruner.narrow import narrowed
from pruner.prune import PruneConfig, prune
from pruner.task import load_task

TASK = """
import torch
from tests.pruner.test_prune_programs import Transformer, batches, loss_of_one

def model():
    torch.manual_seed(0)
    return Transformer()

def example_inputs():
    return (torch.zeros(4, 1, 16, 16),)

train_batches = batches
loss = loss_of_one

def evaluate(model):
    with torch.no_grad():
        right = [(model(images).argmax(1) == labels).float().mean() for images, labels in batches()]
    return {"top1": float(torch.stack(right).mean())}
"""


class Transformer(nn.Module):
    """PyTorch's own attention, whose code derives three times the width, and a slice at a fixed place."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.norm = nn.Conv2d(1, 48, 4, stride=4), nn.BatchNorm1d(48)
        self.attention = nn.MultiheadAttention(48, 6, batch_first=True)
        self.up, self.down, self.head = nn.Linear(48, 96), nn.Linear(96, 48), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.patches(x).flatten(2)).transpose(1, 2)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        x = x + self.down(functional.relu(self.up(x)))
        return self.head(x.mean(1)[:, :32])


def batches() -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        images = torch.randn(8, 1, 16, 16, generator=generator)
        yield images, (images.mean((1, 2, 3)) > 0).long()


def loss_of_one(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    images, labels = batch
    return functional.cross_entropy(model(images), labels, reduction="none")


def picture() -> tuple[Tensor]:
    return (torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(0)),)


def test_scores_of_a_program_are_those_of_the_masked_network() -> None:
    """Nothing is normalised across channels, so masking and shrinking agree, and so must their scores."""
    model = awaken(Transformer()).eval()
    groups = find_groups(model, picture())
    first = {group.name: [0, group.size - 1] for group in groups if group.size > 4}
    shrunk, left = cut(model, groups, first), narrowed(groups, first)
    assert any(isinstance(module, ProgramModule) for module in shrunk.modules())
    inner = [group for group in groups if group.size > 1]
    masked = fisher_scores(zero(model, groups, first), inner, list(batches()), loss_of_one)
    found = fisher_scores(shrunk, [group for group in left if group.size > 1], list(batches()), loss_of_one)
    for group in inner:
        kept = [choice for choice in range(group.size) if choice not in first.get(group.name, [])]
        np.testing.assert_allclose(found[group.name], masked[group.name][kept], rtol=2e-3, atol=1e-7)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("programs")
    (folder / "transformer_task.py").write_text(TASK)
    task = load_task(str(folder / "transformer_task.py"))
    table = folder / "device.db"
    profile(analyze(task.build(), task.inputs()), table, config=ProfileConfig(networks_min=8, networks_max=10, runs=6))
    prune(task, table, budget_fraction=0.8, config=PruneConfig(epochs=1, rounds=2), out=folder / "run")
    return folder


def test_a_run_with_programs_comes_back_from_json_and_safetensors(finished: Path) -> None:
    run = finished / "run"
    plan = pruner.PrunePlan.read(run / "plan.json")
    assert plan.form == "program"
    assert json.loads((run / "result.json").read_text())["exported_as_timed"]
    model = pruner.load(load_task(str(finished / "transformer_task.py")).build, run)
    assert any(isinstance(module, ProgramModule) for module in model.modules())
    exported = list(evaluate((run / "model.onnx").read_bytes(), flat_arrays(picture())).values())
    assert largest_difference(exported, output_arrays(model, picture())) <= 1e-4
    model.train()(torch.randn(3, 1, 16, 16)).sum().backward()
    pruner.save(model.eval(), plan, finished / "again")
    again = pruner.load(load_task(str(finished / "transformer_task.py")).build, finished / "again")
    with torch.no_grad():
        assert torch.equal(again(*picture()), copy.deepcopy(model)(*picture()))


def test_a_plan_whose_programs_are_another_networks_is_refused(finished: Path) -> None:
    class Other(Transformer):
        def __init__(self) -> None:
            super().__init__()
            self.attention, self.other = nn.Identity(), self.attention

    with pytest.raises(RunError, match="does not fit the model"):
        pruner.load(Other, finished / "run")
