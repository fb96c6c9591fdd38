"""Training is placed where it is asked for and leaves no trace there; what a machine cannot do is said."""

import copy
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lut.errors import LatpruneError
from pruner.placement import PlacementError, choose_device, moved, refuse_several_processes, updates
from pruner.task import Task
from pruner.training import finetune
from tests.pruner.programs import pruned_split_net

CPU = torch.device("cpu")


def train_batches() -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    for _ in range(4):
        values = torch.randn(32, 5, generator=generator)
        yield values, (values[:, 0] > 0).long() + (values[:, 1] > 0).long()


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return functional.cross_entropy(model(batch[0]), batch[1], reduction="none")


TASK = Task("t", nn.Identity, lambda: (), train_batches, loss)


def total(model: nn.Module) -> float:
    with torch.no_grad():
        return float(loss(model, next(train_batches())).mean())


@pytest.mark.parametrize("count", ["2", "16"])
def test_one_of_several_processes_is_refused(count: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", count)
    with pytest.raises(PlacementError, match=f"one of {count} processes"):
        finetune(nn.Linear(5, 3), TASK, epochs=1)


@pytest.mark.parametrize("count", ["1", ""])
def test_a_launcher_of_one_process_is_none(count: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", count)
    refuse_several_processes()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"device": "abacus"}, "no device 'abacus'"),
        ({"device": "cuda:99"}, "no device 'cuda:99'"),
        ({"device": "cpu", "mixed_precision": "fp16"}, "fp16 needs a GPU"),
        ({"mixed_precision": "fp3"}, "no mixed precision 'fp3'"),
    ],
)
def test_what_the_machine_cannot_do_is_said_before_anything_is_trained(asked: dict[str, Any], said: str) -> None:
    model = nn.Linear(5, 3)
    before = model.weight.clone()
    with pytest.raises(PlacementError, match=said):
        finetune(model, TASK, epochs=1, **asked)
    assert torch.equal(model.weight, before)


def test_a_network_on_several_devices_is_refused() -> None:
    model = nn.Sequential(nn.Linear(5, 3), nn.Linear(3, 3, device="meta"))
    with pytest.raises(PlacementError, match="cpu, meta"):
        finetune(model, TASK, epochs=1)


def test_the_cpu_may_be_asked_for() -> None:
    assert choose_device(nn.Linear(1, 1), "cpu") == CPU


def test_a_missing_accelerate_is_said_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(PlacementError, match="pip install accelerate"):
        finetune(nn.Linear(5, 3), TASK, epochs=1, device="cpu", mixed_precision="bf16")


def test_nothing_of_accelerate_stays_and_what_the_user_set_up_is_given_back() -> None:
    accelerate = pytest.importorskip("accelerate")
    from accelerate.state import AcceleratorState, GradientState, PartialState

    def train() -> None:
        finetune(nn.Linear(5, 3), TASK, epochs=1, device="cpu", mixed_precision="bf16")

    train()
    assert not PartialState._shared_state
    try:
        user = accelerate.Accelerator(cpu=True, mixed_precision="no", gradient_accumulation_steps=8)
        train()
        assert (user.mixed_precision, user.gradient_accumulation_steps) == ("no", 8)
        assert AcceleratorState().mixed_precision == "no"
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()


def test_a_launchers_environment_changes_no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    models = [nn.Linear(5, 3) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    for model, steps in zip(models, ("1", "4"), strict=True):
        monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", steps)
        optimizer = torch.optim.SGD(model.parameters(), 1.0)
        with updates([model], optimizer, device=CPU, mixed_precision="bf16") as stepping:
            # So small that it is not clipped, which would hide what it is divided by.
            stepping.step(model(torch.ones(1, 5)).sum() * 1e-2)
    assert torch.equal(models[0].weight, models[1].weight)


def test_a_program_trains_in_full_precision_where_the_rest_is_mixed(caplog: pytest.LogCaptureFixture) -> None:
    model = copy.deepcopy(pruned_split_net())
    types = {}
    for name in ("stem", "inner"):
        model.get_submodule(name).register_forward_hook(
            lambda _module, _args, output, name=name: types.update({name: output.dtype})
        )
    before = total(model)
    with caplog.at_level("WARNING"):
        finetune(model, TASK, epochs=5, lr=1e-2, device="cpu", mixed_precision="bf16")
    assert types == {"stem": torch.bfloat16, "inner": torch.float32}
    assert "full precision: inner" in caplog.text
    assert total(model) < before - 0.1
    assert "forward" not in vars(model.inner)


def test_nested_batches_are_moved_and_what_is_no_tensor_stays() -> None:
    class Encoded(dict[str, Tensor]):
        """As tokenizers give it."""

        def to(self, device: torch.device) -> "Encoded":
            return Encoded({name: tensor.to(device) for name, tensor in self.items()})

    meta = torch.device("meta")
    found = moved({"a": [torch.ones(1), (torch.ones(2), "text", None, 3)], "b": Encoded(c=torch.ones(1))}, meta)
    assert found["a"][0].device == found["a"][1][0].device == found["b"]["c"].device == meta
    assert found["a"][1][1:] == ("text", None, 3)
    assert isinstance(found["b"], Encoded)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("mixed_precision", ["no", "fp16", "bf16"])
@pytest.mark.parametrize("device", [None, "cuda:0"])
def test_training_runs_on_the_gpu_and_comes_back(mixed_precision: str, device: str | None) -> None:
    model = copy.deepcopy(pruned_split_net())
    parameters, teacher = list(model.parameters()), copy.deepcopy(pruned_split_net())
    places = set()
    model.head.register_forward_hook(lambda _module, _args, output: places.add(output.device.type))  # type: ignore[union-attr]
    before, state = total(model), torch.cuda.get_rng_state()
    places.clear()
    finetune(
        model, TASK, epochs=5, lr=1e-2, teacher=teacher, distill=0.1, device=device, mixed_precision=mixed_precision
    )
    assert places == {"cuda"}
    assert torch.equal(torch.cuda.get_rng_state(), state)
    assert {tensor.device for one in (model, teacher) for tensor in [*one.parameters(), *one.buffers()]} == {CPU}
    assert all(one is other for one, other in zip(parameters, model.parameters(), strict=True))
    assert total(model) < before - 0.05


def test_placement_errors_are_the_users() -> None:
    assert issubclass(PlacementError, LatpruneError)
