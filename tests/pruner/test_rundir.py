"""What was saved is loaded: from the model's function, JSON and safetensors alone."""

import errno
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from lut.errors import RunError
from profiler.cut import cut_positions, lost_positions
from profiler.trial import find_groups
from pruner.plan import PrunePlan
from pruner.rundir import load, save, save_tensors
from pruner.surgery import shapes_left
from tests.pruner.networks import ConcatNet, ResidualNet, build, inputs


def pruned() -> tuple[nn.Module, PrunePlan]:
    model = build(ResidualNet)
    groups = find_groups(model, inputs())
    removed = lost_positions(groups, {"inner": [0, 3], "stem": [1]})
    plan = PrunePlan("hash", {"inner": (1, 2, 4)}, {"inner": 5}, removed, shapes_left(model, removed))
    small = cut_positions(model, removed)
    with torch.no_grad():
        for tensor in [*small.parameters(), *small.buffers()]:
            if tensor.dtype.is_floating_point:
                tensor.add_(0.1)
    return small, plan


def test_a_network_saved_and_loaded_computes_the_same(tmp_path: Path) -> None:
    small, plan = pruned()
    (tmp_path / "mine.txt").touch()
    save(small.train(), plan, tmp_path)
    found = load(lambda: build(ResidualNet, seed=7), tmp_path)
    assert not found.training
    torch.testing.assert_close(found(*inputs()), small.eval()(*inputs()), rtol=0, atol=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.txt", "model.safetensors", "plan.json"]


def test_a_model_that_the_plan_does_not_leave_is_not_saved(tmp_path: Path) -> None:
    _, plan = pruned()
    with pytest.raises(RunError, match="not what the plan leaves"):
        save(build(ResidualNet), plan, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_of_another_network_is_refused(tmp_path: Path) -> None:
    small, plan = pruned()
    save(small, plan, tmp_path)
    with pytest.raises(RunError, match="another network"):
        load(lambda: build(ConcatNet), tmp_path)


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    small, plan = pruned()
    save(small, plan, tmp_path)
    with pytest.raises(RunError, match="float64"):
        load(lambda: build(ResidualNet).float(), tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(RunError, match="damaged"):
        load(lambda: build(ResidualNet), tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(RunError, match="There is no"):
        load(lambda: build(ResidualNet), tmp_path)


class Tied(nn.Module):
    """Two names of one weight, and a buffer that is not part of the state."""

    scratch: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(3, 3)
        self.other = nn.Linear(3, 3)
        self.other.weight = self.one.weight
        self.register_buffer("scratch", torch.randn(3), persistent=False)


def test_tied_weights_are_written_once_and_stay_tied(tmp_path: Path) -> None:
    model = Tied()
    save(model, PrunePlan("hash", {}, {}, {}), tmp_path)
    found = load(Tied, tmp_path)
    assert found.one.weight is found.other.weight  # type: ignore[union-attr]
    assert torch.equal(found.one.weight, model.one.weight)  # type: ignore[union-attr, arg-type]


def test_a_full_disk_is_the_systems_own_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: object, **_options: object) -> None:
        # as safetensors 0.8 said it on a full tmpfs
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("pruner.rundir.save_file", full)
    with pytest.raises(OSError, match="No space left on device") as raised:
        save_tensors({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    assert raised.value.errno == errno.ENOSPC
    assert raised.value.filename == str(tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())
