"""A branch's score is the Fisher information of an explicit mask on what the branch adds."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from lut.errors import LatpruneError, TaskError
from profiler.awake import awaken
from profiler.blocks import Block, find_blocks
from profiler.network import analyze
from pruner.importance.branches import branch_scores
from tests.profiler.residual_networks import Around, Basic, build

ENDS = {
    "resnet": ("inner.0.bn2", "inner.2.bn2"),
    "mobilenet": ("inner.0.project", "inner.1.project"),
    "scaled": ("inner.0.two", "inner.1.two"),
    "nested": ("inner.0.blocks.0.bn2", "inner.0.blocks.1.last", "inner.0.last"),
    "in a program": ("inner.0.inner.bn2", "inner.1.bn2"),
    "encoder": tuple(f"encoder.layers.{layer}.dropout{number}" for layer in (0, 1) for number in (1, 2)),
    "windows": ("out",),
}
ENDS["encoder, norms last"] = ENDS["encoder"]
"""The module that ends each branch (what follows within the branch is linear).

"pre-activation" is left out: its sum is written into what its norm needs, so PyTorch has no gradient for it.
"""


def awake(name: str) -> tuple[nn.Module, tuple[Tensor], tuple[Block, ...]]:
    model, inputs = build(name)
    blocks = find_blocks(analyze(model, inputs))
    return awaken(model.double(), 5), (inputs[0].double(),), blocks


def batches_like(tensor: Tensor) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn((size, *tensor.shape[1:]), generator=generator).to(tensor) for size in (3, 2)]


def loss(model: nn.Module, batch: Tensor) -> Tensor:
    return model(batch).square().sum(-1)


def masked_scores(
    model: nn.Module, ends: dict[str, str], batches: list[Tensor], dimension: int, loss: Callable[..., Tensor] = loss
) -> dict[str, float]:
    """An independent slow calculation: a mask of ones for each sample is multiplied onto the output of a module."""
    sums = dict.fromkeys(ends, 0.0)
    for batch in batches:
        masks = {name: torch.ones(len(batch), dtype=batch.dtype, requires_grad=True) for name in ends}
        handles = []
        for name, end in ends.items():

            def put(_module: nn.Module, _inputs: object, output: Tensor, mask: Tensor = masks[name]) -> Tensor:
                shape = [1] * output.dim()
                shape[dimension] = len(mask)
                return output * mask.view(shape)

            handles.append(model.get_submodule(end).register_forward_hook(put))
        gradients = torch.autograd.grad(loss(model, batch).sum(), list(masks.values()))
        for handle in handles:
            handle.remove()
        for name, gradient in zip(ends, gradients, strict=True):
            sums[name] += float(gradient.square().sum())
    return {name: value / (2 * sum(map(len, batches))) for name, value in sums.items()}


@pytest.mark.parametrize("name", ENDS)
def test_a_score_is_that_of_an_explicit_mask(name: str) -> None:
    model, inputs, blocks = awake(name)
    before = copy.deepcopy(model.state_dict())
    asking = [parameter.requires_grad for parameter in model.parameters()]
    batches = batches_like(inputs[0])
    found = branch_scores(model, blocks, batches, loss)
    ends = dict(zip((block.name for block in blocks), ENDS[name], strict=True))
    expected = masked_scores(model, ends, batches, blocks[0].samples)
    assert found == pytest.approx(expected, rel=1e-9)
    assert all(value > 0 for value in found.values())
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    assert [parameter.requires_grad for parameter in model.parameters()] == asking
    assert all(parameter.grad is None for parameter in model.parameters())


def test_scores_do_not_depend_on_how_samples_are_batched() -> None:
    model, inputs, blocks = awake("resnet")
    batches = batches_like(inputs[0])
    single = [sample[None] for batch in batches for sample in batch]
    assert branch_scores(model, blocks, batches, loss) == pytest.approx(branch_scores(model, blocks, single, loss))


def test_blocks_are_scored_in_a_part_of_a_larger_model_also_where_it_runs_twice() -> None:
    class Whole(nn.Module):
        def __init__(self, part: nn.Module) -> None:
            super().__init__()
            self.part, self.head = part, nn.Linear(10, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.part(x) + self.part(x.flip(-1)))

    part, inputs, blocks = awake("resnet")
    model = Whole(part).double().eval()
    batches = batches_like(inputs[0])
    found = branch_scores(model, blocks, batches, loss, part=part)
    ends = {block.name: f"part.{end}" for block, end in zip(blocks, ENDS["resnet"], strict=True)}
    assert found == pytest.approx(masked_scores(model, ends, batches, 0), rel=1e-9)


def test_frozen_weights_are_scored_and_stay_frozen() -> None:
    model, inputs, blocks = awake("mobilenet")
    batches = batches_like(inputs[0])
    expected = branch_scores(model, blocks, batches, loss)
    model.requires_grad_(False)
    assert branch_scores(model, blocks, batches, loss) == pytest.approx(expected)
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_a_mean_is_refused() -> None:
    model, inputs, blocks = awake("resnet")
    with pytest.raises(TaskError, match="mean"):
        branch_scores(model, blocks, batches_like(inputs[0]), lambda model, batch: loss(model, batch).mean())


def test_a_loss_without_gradient_is_refused() -> None:
    model, inputs, blocks = awake("resnet")
    with pytest.raises(TaskError, match="no gradient"):
        branch_scores(model, blocks, batches_like(inputs[0]), torch.no_grad()(loss))


def test_no_batches_are_refused_and_no_blocks_need_none() -> None:
    model, _, blocks = awake("resnet")
    with pytest.raises(TaskError, match="no batch"):
        branch_scores(model, blocks, [], loss)
    assert branch_scores(model, [], [], loss) == {}


class Sometimes(Basic):
    """Adds once more where more than two samples are given."""

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 2:
            x = x + x
        return x + self.conv2(self.conv1(x))


def test_a_module_that_runs_otherwise_than_in_the_trace_is_refused() -> None:
    torch.manual_seed(0)
    model, inputs = Around(Sometimes()).eval(), (torch.randn(1, 3, 8, 8),)
    blocks = find_blocks(analyze(model, inputs))
    assert [block.name for block in blocks] == ["inner.0"]
    with pytest.raises(LatpruneError, match="does 2 additions under loss"):
        branch_scores(model, blocks, [torch.randn(4, 3, 8, 8)], loss)


def test_a_block_that_the_loss_never_runs_is_said() -> None:
    model, inputs, blocks = awake("resnet")
    with pytest.raises(LatpruneError, match=r"never runs the block inner\.0"):
        branch_scores(model, blocks, batches_like(inputs[0]), lambda model, batch: model.stem(batch).flatten(1).sum(1))
