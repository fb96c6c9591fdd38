"""A student's outputs come closer to the teacher's, which stays as it is; what cannot be compared is refused."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from lut.errors import TaskError
from pruner.distill import TEMPERATURE, Distillation, check_distillation, output_distance
from pruner.task import Task
from pruner.training import finetune
from tests.pruner.networks import Batch, ResidualNet, batches, build, loss


def task(of: Callable[[nn.Module, Any], Tensor] = loss, given: list[Any] | None = None, **functions: Any) -> Task:
    return Task("t", nn.Identity, lambda: (), lambda: given or batches(16, 16, 16), of, **functions)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def taught(task: Task, student: nn.Module, teacher: nn.Module, batch: Any) -> Tensor:
    """The distance in one computation of the loss."""
    assert task.loss is not None
    distillation = Distillation(task, student, teacher)
    with distillation.listening() as lesson:
        task.loss(student, batch)
    return distillation.distance(lesson, batch)


def from_teacher(student: nn.Module, teacher: nn.Module) -> float:
    with torch.no_grad():
        images = batches(64)[0][0]
        return float(output_distance(student.eval()(images), teacher.eval()(images)))


def test_logits_are_compared_as_softened_classes() -> None:
    student, teacher = noise(5, 3), noise(5, 3, seed=1)
    ours, theirs = (torch.softmax(side / TEMPERATURE, 1) for side in (student, teacher))
    expected = TEMPERATURE**2 * (theirs * (theirs / ours).log()).sum(1).mean()
    torch.testing.assert_close(output_distance(student, teacher), expected)
    torch.testing.assert_close(output_distance(student + 7, teacher), expected)


@given(st.sampled_from([(4, 1), (4,), (2, 3, 4), (2, 3, 4, 5), (), (1, 1)]), st.floats(1e-3, 1e3))
def test_other_outputs_are_compared_in_units_of_the_teachers_spread(shape: tuple[int, ...], unit: float) -> None:
    student, teacher = noise(*shape), noise(*shape, seed=1)
    found = output_distance(student, teacher)
    torch.testing.assert_close(output_distance(student * unit, teacher * unit), found)
    assert output_distance(teacher, teacher) == 0 < found
    if teacher.numel() > 1:
        assert output_distance(teacher.mean().expand(shape), teacher) == pytest.approx(1)


def test_an_output_without_any_spread_has_a_distance_too() -> None:
    assert bool(torch.isfinite(output_distance(noise(3, 4, 5), torch.zeros(3, 4, 5))))


def test_half_precision_is_compared_in_single() -> None:
    assert output_distance(noise(5, 3).half(), noise(5, 3).bfloat16()).dtype == torch.float32


def test_learning_from_the_teacher_alone_brings_the_student_closer_and_leaves_the_teacher_as_it_is() -> None:
    teacher, student = build(ResidualNet), build(ResidualNet, seed=1)
    teacher.norm.train()  # type: ignore[union-attr]
    teacher.head.weight.requires_grad_(False)  # type: ignore[union-attr]
    before = copy.deepcopy(teacher)
    unlike = from_teacher(student, copy.deepcopy(teacher))
    said: list[str] = []
    finetune(
        student,
        task(),
        epochs=10,
        lr=1e-2,
        teacher=teacher,
        distill=1,
        progress=lambda event: said.append(event.note),
    )
    for (name, now), then in zip(teacher.state_dict().items(), before.state_dict().values(), strict=True):
        assert torch.equal(now, then), name
    assert [module.training for module in teacher.modules()] == [module.training for module in before.modules()]
    assert [p.requires_grad for p in teacher.parameters()] == [p.requires_grad for p in before.parameters()]
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert from_teacher(student, teacher) < unlike / 2
    assert said[-1].endswith("from the teacher")


def test_the_share_mixes_loss_and_distance() -> None:
    found = {}
    for share in (0.0, 0.25, 1.0):
        student, teacher = build(ResidualNet), build(ResidualNet, seed=1)
        student.drop.p = 0.0  # type: ignore[union-attr]
        first: list[Tensor] = []

        def keep(_epoch: int, model: nn.Module, _optimizer: Any, first: list[Tensor] = first) -> None:
            first.append(model.head.bias.grad.clone())  # type: ignore[union-attr, operator]

        big = task(lambda model, batch: loss(model, batch) * 1e-3, [batches(16)[0]], distill=small_distance)
        finetune(student, big, epochs=1, teacher=teacher, distill=share, after_epoch=keep)
        found[share] = first[0]
    torch.testing.assert_close(found[0.25], 0.75 * found[0.0] + 0.25 * found[1.0])
    assert not torch.allclose(found[0.0], found[1.0])


def small_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Small enough that no gradient is clipped."""
    return (student - teacher).square().sum(1) * 1e-3


def test_without_a_share_the_teacher_is_not_asked() -> None:
    plain, taught_nothing = build(ResidualNet), build(ResidualNet)
    finetune(plain, task(), epochs=1)
    finetune(taught_nothing, task(), epochs=1, teacher=nn.Identity(), distill=0)
    assert torch.equal(plain.head.weight, taught_nothing.head.weight)  # type: ignore[union-attr, arg-type]


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        finetune(build(ResidualNet), task(), epochs=1, distill=share)


class Nested(nn.Module):
    """Gives a dict with a tuple in it, of which one is whole numbers; changes its input in place."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor, *, more: Tensor | None = None) -> dict[str, Any]:
        x.mul_(2).add_(1)
        out = x * self.scale + (0 if more is None else more)
        return {"parts": (out, out.argmax(1)), "sum": out.sum(), "nothing": None}


def of_nested(model: nn.Module, batch: Tensor) -> Tensor:
    found = model(batch.clone(), more=batch)["parts"][0]
    return found.relu_().sum(1)  # type: ignore[no-any-return]


def test_nested_outputs_and_inputs_changed_in_place_are_compared_as_they_were() -> None:
    student, teacher = Nested(), Nested()
    assert taught(task(of_nested), student, teacher, noise(4, 3)) == 0
    with torch.no_grad():
        teacher.scale[0] = 2
    found = taught(task(of_nested), student, teacher, noise(4, 3))
    out = [(2 * noise(4, 3) + 1) * scale + noise(4, 3) for scale in (student.scale, teacher.scale)]
    expected = (output_distance(out[0], out[1]) + output_distance(out[0].sum(), out[1].sum())) / 2
    torch.testing.assert_close(found, expected)


def test_only_the_deployed_part_is_compared_on_what_it_is_given() -> None:
    def whole() -> nn.Module:
        return nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2), nn.Linear(2, 1)).double()

    student, teacher = whole(), whole()
    part = task(lambda model, batch: model(batch).sum(), network=lambda model: model[1])
    inside = student[0](noise(4, 3))  # type: ignore[index]
    expected = output_distance(student[1](inside), teacher[1](inside))  # type: ignore[index]
    torch.testing.assert_close(taught(part, student, teacher, noise(4, 3)), expected)


def test_the_tasks_own_distance_is_a_sum_or_one_value_a_sample() -> None:
    student, teacher = build(ResidualNet), build(ResidualNet, seed=1)
    batch = batches(16)[0]
    each = taught(task(distill=small_distance), student, teacher, batch)
    together = taught(task(distill=lambda a, b: small_distance(a, b).sum()), student, teacher, batch)
    torch.testing.assert_close(each, together)
    torch.testing.assert_close(each, small_distance(student(batch[0]), teacher(batch[0])).mean())


def test_of_several_calls_the_mean_counts() -> None:
    def twice(model: nn.Module, batch: Batch) -> Tensor:
        return model(batch[0]).sum(1) + model(-batch[0]).sum(1)

    student, teacher = build(ResidualNet), build(ResidualNet, seed=1)
    images = batches(16)[0][0]
    expected = (
        output_distance(student(images), teacher(images)) + output_distance(student(-images), teacher(-images))
    ) / 2
    torch.testing.assert_close(taught(task(twice), student, teacher, batches(16)[0]), expected)


class Named(nn.Linear):
    """Gives another output by name in training, before the one that is deployed."""

    def forward(self, x: Tensor) -> Any:
        out = super().forward(x)
        return {"aux": 2 * out, "out": out} if self.training else {"out": out}


def test_outputs_by_name_are_compared_by_name_and_those_of_training_alone_are_passed_over() -> None:
    student, teacher, inputs = Named(3, 2).train(), Named(3, 2), torch.ones(4, 3)
    expected = output_distance(nn.Linear.forward(student, inputs), nn.Linear.forward(teacher, inputs))
    found = taught(task(lambda model, batch: model(batch)["aux"].sum()), student, teacher, inputs)
    torch.testing.assert_close(found, expected)


class Auxiliary(nn.Linear):
    """Gives more in training than in eval mode."""

    def forward(self, x: Tensor) -> Any:
        out = super().forward(x)
        return (out, out) if self.training else out


@pytest.mark.parametrize(
    ("of", "student", "functions", "said"),
    [
        (lambda model, batch: model.forward(batch).sum(), nn.Linear(3, 2), {}, "does not call the network"),
        (lambda model, batch: model(batch)[0].sum(), Auxiliary(3, 2), {}, r"\[\[4, 2\], \[4, 2\]\].*\[\[4, 2\]\]"),
        (lambda model, batch: model(batch).sum(), nn.Linear(3, 3), {}, r"(?s)\[\[4, 3\]\].*distill\("),
        (lambda model, batch: model(batch).sum(), nn.Linear(3, 2).requires_grad_(False), {}, "no tensor with a grad"),
        (lambda model, batch: model(batch).sum(), nn.Linear(3, 2), {"distill": lambda _a, _b: 3}, "gives int"),
        (
            lambda model, batch: model(batch).sum(),
            nn.Linear(3, 2),
            {"distill": lambda _a, b: b.sum()},
            "no tensor with",
        ),
        (
            lambda model, batch: model(batch).sum(),
            nn.Linear(3, 2),
            {"distill": lambda a, _b: a.sum() * float("inf")},
            "inf; a finite",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(of: Any, student: nn.Module, functions: dict[str, Any], said: str) -> None:
    with pytest.raises(TaskError, match=said):
        taught(task(of, **functions), student, type(student)(3, 2), torch.ones(4, 3))


def test_a_network_that_cannot_learn_from_itself_is_found_before_it_is_pruned() -> None:
    model = build(ResidualNet)
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    check_distillation(model, task())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.training
    with pytest.raises(TaskError, match="cannot be compared"):
        check_distillation(Auxiliary(3, 2).eval(), task(lambda model, batch: model(batch)[0].sum(), [torch.ones(4, 3)]))


def test_a_teacher_that_would_learn_as_well_is_refused() -> None:
    model = build(ResidualNet)
    with pytest.raises(ValueError, match="shares weights"):
        finetune(model, task(), epochs=1, teacher=model)
