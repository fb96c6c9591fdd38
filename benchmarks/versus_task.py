"""What every method is given alike: the task with its pictures, the training, the judge, and the unpruned network."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.versus_data import Batch, Batches, Pictures, read_digits, read_fashion, ready
from benchmarks.versus_networks import DIGITS, FASHION, NETWORKS, PHOTOGRAPHS, Subject
from benchmarks.versus_photos import Wanted, find_photographs, read_photographs
from pruner.distill import output_distance
from pruner.norms import reestimate_norms
from pruner.rundir import persistent_tensors, save_tensors
from pruner.task import Task
from pruner.training import evaluate, finetune

JUDGED_AT_ONCE = 100
BEFORE_IMAGES = 2000
"""Test pictures by which a network is judged before fine-tuning, which is in no comparison."""


@dataclass(frozen=True)
class Course:
    """A network with the pictures that it is trained on and judged by.

    Attributes:
        subject: the network, and how much training it gets.
        pictures: to train on and to judge by.
        seed: of weights, order and everything else.
    """

    subject: Subject
    pictures: Pictures
    seed: int

    def task(self, model: Callable[[], nn.Module], *, scoring: bool = False) -> Task:
        """The task of a network; for scoring with fewer pictures, in order and unmoved, and no judging."""
        effort, pictures = self.subject.effort, self.pictures

        def train_batches() -> Iterable[Batch]:
            count = effort.score_images if scoring else effort.images
            return Batches(pictures, count, effort.batch, plain=scoring)

        return Task(
            name=self.subject.title,
            model=model,
            example_inputs=lambda: (torch.zeros(self.subject.shape),),
            train_batches=train_batches,
            loss=loss,
            evaluate=None if scoring else self.judge,
        )

    @torch.no_grad()
    def judge(self, model: nn.Module, count: int | None = None) -> dict[str, float]:
        """The share of test pictures whose class is found, of all that are used or the first `count`.

        Where the unpruned network has said the classes, that is how often both agree.
        """
        most = min(count or self.subject.effort.test_images, self.subject.effort.test_images)
        images, labels = (part[:most] for part in self.pictures.test)
        model.eval()
        found = torch.cat([model(ready(chunk)).argmax(1) for chunk in images.split(JUDGED_AT_ONCE)])
        return {"top1": (found == labels).float().mean().item()}

    def train(self, model: nn.Module, epochs: int, *, peak: float | None = None) -> float:
        """Train in place, and give back the accuracy.

        Args:
            model: changed; in eval mode afterwards.
            epochs: of the pictures that are used.
            peak: highest learning rate, or None for the trainer's own.
        """
        task = self.task(lambda: model)
        model.to(memory_format=torch.channels_last)
        finetune(model, task, epochs=epochs, seed=self.seed, lr=peak)
        model.to(memory_format=torch.contiguous_format)
        return next(iter(evaluate(task, model).values()))

    def train_unpruned(self) -> tuple[nn.Module, float]:
        """Train the unpruned network from random weights, or take the one that comes with its weights; its accuracy."""
        if self.subject.trained is not None:
            model = self.subject.trained().eval()
            return model, self.judge(model)["top1"]
        model = self.subject.build(self.seed)
        return model, self.train(model, self.subject.epochs, peak=self.subject.effort.peak)

    def tune(self, model: nn.Module) -> tuple[float, float]:
        """Fine-tune in place as every method's networks are; accuracy before it, on fewer pictures, and after.

        Norms are measured anew before, from the same pictures.
        """
        reestimate_norms(model, self.task(lambda: model), seed=self.seed)
        before = self.judge(model, BEFORE_IMAGES)["top1"]
        return before, self.train(model, self.subject.effort.tune_epochs, peak=self.subject.effort.tune_peak)

    def train_anew(self, model: nn.Module) -> float:
        """Train a network of a pruned one's shape from random weights, as long as both trainings together.

        Raises:
            ValueError: a layer has weights and cannot reset them.
        """
        torch.manual_seed(self.seed)
        for module in model.modules():
            reset = getattr(module, "reset_parameters", None)
            if reset is not None:
                reset()
            elif next(module.parameters(recurse=False), None) is not None:
                raise ValueError(f"{type(module).__name__} cannot be reset to random weights.")
        effort = self.subject.effort
        return self.train(model, self.subject.epochs + effort.tune_epochs, peak=effort.peak)

    def unpruned(self, weights: Path) -> nn.Module:
        """The trained unpruned network from the file of its weights, in eval mode."""
        model = self.subject.build(self.seed)
        model.load_state_dict(load_file(weights))
        return model.eval()


def loss(model: nn.Module, batch: Batch) -> Tensor:
    """The cross entropy, one value a picture; towards logits, the sum of latprune's own distance in distillation."""
    images, targets = batch
    if targets.is_floating_point():
        return len(targets) * output_distance(model(images), targets)
    return functional.cross_entropy(model(images), targets, reduction="none")


def open_course(name: str, seed: int, store: Path) -> Course:
    """A network's training on the pictures of this machine.

    Raises:
        DataMissingError: they are not there.
    """
    return Course(NETWORKS[name], read_pictures(name, seed, store), seed)


def read_pictures(name: str, seed: int, store: Path) -> Pictures:
    """The pictures of a network.

    Raises:
        DataMissingError: they are not on this machine.
    """
    subject = NETWORKS[name]
    if subject.data == DIGITS:
        return read_digits()
    if subject.data == PHOTOGRAPHS:
        assert subject.trained is not None
        trained, effort = subject.trained, subject.effort
        return read_photographs(
            lambda: trained().eval(),
            store / name / f"squares.s{seed}.safetensors",
            wanted=Wanted(subject.side, effort.images, effort.test_images),
            seed=seed,
        )
    return read_fashion(store, side=subject.side)


def check_data(names: Iterable[str], store: Path) -> None:
    """Make sure that the pictures of networks, and the weights that come with them, are on this machine.

    Raises:
        DataMissingError: they are not; says how to get them.
    """
    subjects = [NETWORKS[name] for name in names]
    kinds = {subject.data for subject in subjects}
    if FASHION in kinds:
        read_fashion(store)
    if PHOTOGRAPHS in kinds:
        find_photographs()
    for subject in subjects:
        if subject.trained is not None:
            subject.trained()


def save_weights(model: nn.Module, path: Path) -> None:
    """Write a network's weights and statistics as safetensors."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_tensors(persistent_tensors(model), path)
