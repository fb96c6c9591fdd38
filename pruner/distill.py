"""Has a pruned network learn from the unpruned one: what both give on the same inputs is to be alike.

    loss = (1 - share) * task's loss + share * distance(student's outputs, teacher's outputs)

Source: Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network, 2015, arXiv:1503.02531.
"""

import contextlib
import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._pytree import tree_leaves, tree_map_only

from lut.errors import TaskError
from pruner.importance.batches import count_samples, loss_of
from pruner.placement import in_single
from pruner.seeds import seeded
from pruner.task import Task

SHARE = 0.5
"""Of what is trained for, how much is the teacher's where nothing else is said."""
TEMPERATURE = 4.0
"""Softens both sides' classes, so that the unlikely ones count as well."""
TINY = 1e-12
"""A spread smaller than this is none."""


@dataclass
class Lesson:
    """What student and teacher gave in one computation of the loss, call by call."""

    teacher: list[Any] = field(default_factory=list)
    student: list[Any] = field(default_factory=list)


class Distillation:
    """Runs a teacher beside the deployed part of a model, and tells how far apart their outputs are."""

    def __init__(self, task: Task, model: nn.Module, teacher: nn.Module) -> None:
        """Find the deployed parts; none of the two models is changed.

        Args:
            task: with `network` where a part of the model is deployed, and perhaps with its own `distill`.
            model: what is trained.
            teacher: another model of the task.

        Raises:
            ValueError: they share weights that are trained.
        """
        trained = {id(weight) for weight in model.parameters() if weight.requires_grad}
        if any(id(weight) in trained for weight in teacher.parameters()):
            raise ValueError("the teacher shares weights with the model: it would change as the model learns")
        self.task = task
        self.student, self.teacher = task.deployed(model), task.deployed(teacher)

    @contextlib.contextmanager
    def listening(self) -> Iterator[Lesson]:
        """While the loss is computed, ask the teacher whenever the student is asked.

        The teacher gets copies of the inputs before the student does, which may work on them in place; it is in eval
        mode meanwhile, and keeps no graph.
        """
        lesson = Lesson()

        def ask(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            with torch.no_grad():
                copied, named = tree_map_only(Tensor, _copied, (args, kwargs))
                lesson.teacher.append(self.teacher(*copied, **named))

        def hear(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
            # The loss may work on the outputs in place.
            lesson.student.append(tree_map_only(Tensor, Tensor.clone, output))

        modes = {module: module.training for module in self.teacher.modules()}
        hooks = [self.student.register_forward_pre_hook(ask, with_kwargs=True)]
        hooks.append(self.student.register_forward_hook(hear))
        self.teacher.eval()
        try:
            yield lesson
        finally:
            for hook in hooks:
                hook.remove()
            for module, training in modes.items():
                module.training = training

    def distance(self, lesson: Lesson, batch: Any) -> Tensor:
        """How far apart the outputs are, as a mean over samples (a number with a gradient).

        Raises:
            TaskError: the loss did not call the deployed part, the outputs cannot be compared, or the task's own
                `distill` gives no finite tensor with a gradient.
        """
        if not lesson.student:
            raise TaskError(
                f"{self._who}: loss() does not call the network that is deployed, so there is nothing to distil.\n"
                "Let it call the model (or what network(model) gives), or train without a teacher"
            )
        measure = self._own_distance if self.task.distill is not None else self._general_distance
        distances = [
            measure(student, teacher, batch) for student, teacher in zip(lesson.student, lesson.teacher, strict=True)
        ]
        distance = torch.stack(distances).mean()
        if not distance.requires_grad or not bool(torch.isfinite(distance)):
            found = float(distance.detach()) if distance.requires_grad else "no tensor with a gradient"
            raise TaskError(f"{self._who}: the distance from the teacher's outputs is {found}; a finite one is meant.")
        return distance

    def _own_distance(self, student: Any, teacher: Any, batch: Any) -> Tensor:
        assert self.task.distill is not None
        value = self.task.distill(student, teacher)
        if not isinstance(value, Tensor) or not value.dtype.is_floating_point or not value.numel():
            raise TaskError(f"{self._who}: distill() gives {type(value).__name__}, not a tensor of distances.")
        return value.sum() / count_samples(batch, value)

    def _general_distance(self, student: Any, teacher: Any, _batch: Any) -> Tensor:
        if isinstance(student, Mapping) and isinstance(teacher, Mapping) and set(teacher) <= set(student):
            # the student may give more: auxiliary heads run in training alone
            student, teacher = {name: student[name] for name in teacher}, dict(teacher)
        ours, theirs = _tensors(student), _tensors(teacher)
        shapes = [list(tensor.shape) for tensor in ours], [list(tensor.shape) for tensor in theirs]
        if shapes[0] != shapes[1]:
            raise TaskError(
                f"{self._who}: the network's outputs in training are {shapes[0]} and the teacher's {shapes[1]}, which "
                "cannot be compared.\nGive the task distill(student_output, teacher_output), or train without a teacher"
            )
        learnt = [(a, b) for a, b in zip(ours, theirs, strict=True) if a.requires_grad and a.numel()]
        if not learnt:
            raise TaskError(
                f"{self._who}: the network gives no tensor with a gradient to compare with the teacher's.\n"
                "Give the task distill(student_output, teacher_output), or train without a teacher"
            )
        return torch.stack([output_distance(a, b) for a, b in learnt]).mean()

    @property
    def _who(self) -> str:
        return self.task.source or self.task.name


def output_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """How far one output is from the teacher's; 0 where they are equal, without a unit, of like size for all.

    `[N, C]` with more than one C is taken for the logits of classes:

        T^2 * mean over n of KL(softmax(teacher[n] / T) || softmax(student[n] / T))

    where the square makes up for the gradients, which fall with the temperature. Anything else (maps, sequences, single
    numbers) is compared element by element:

        mean((student - teacher)^2) / variance(teacher)

    Args:
        student: floating point.
        teacher: of the same shape.
    """
    ours = in_single(student)
    theirs = teacher.detach().to(ours)
    if ours.dim() == 2 and ours.shape[1] > 1:
        ours, theirs = (functional.log_softmax(side / TEMPERATURE, 1) for side in (ours, theirs))
        return TEMPERATURE**2 * functional.kl_div(ours, theirs, reduction="batchmean", log_target=True)
    spread, square = theirs.var(correction=0), theirs.square().mean()
    # A single number has no variance: its own square then says what is much.
    scale = torch.where(spread > TINY * square, spread, square).clamp_min(TINY)
    return (ours - theirs).square().mean() / scale


def _tensors(output: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor) and leaf.dtype.is_floating_point]


def _copied(tensor: Tensor) -> Tensor:
    return tensor.detach().clone()


def check_distillation(model: nn.Module, task: Task) -> None:
    """Make sure that a model can learn from itself on the first batch, before hours of other work.

    Args:
        model: left as it is, as are the random generators.
        task: with `loss` and `train_batches`.

    Raises:
        TaskError: the loss does not call what is deployed, or outputs in training and in eval mode cannot be compared.
    """
    task.require("loss", "train_batches")
    assert task.loss is not None
    assert task.train_batches is not None
    student = copy.deepcopy(model).train()
    distillation = Distillation(task, student, model)
    with seeded(0):
        for batch in islice(task.train_batches(), 1):
            with distillation.listening() as lesson:
                loss_of(student, batch, task.loss, 1)
            distillation.distance(lesson, batch)
