"""What every method is given alike: the task, how much training there is, and the unpruned network."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.versus_data import Batch, Batches, Pictures, read_digits, read_fashion
from benchmarks.versus_networks import NETWORKS, QUICK, Subject
from pruner.norms import reestimate_norms
from pruner.rundir import persistent_tensors, save_tensors
from pruner.task import Task
from pruner.training import evaluate, finetune

JUDGED_AT_ONCE = 500
BEFORE_IMAGES = 2000
"""Test pictures by which a network is judged before fine-tuning, which is in no comparison."""


@dataclass(frozen=True)
class Effort:
    """How much training each network gets; the same for all methods.

    Attributes:
        images: of the training set that are used, its first.
        tune_epochs: of fine-tuning after pruning.
        score_images: of these, by which channels are scored.
        batch: of training.
        peak: highest learning rate in the training of the unpruned network; fine-tuning has the trainer's own.
        base_epochs: of training the unpruned network, or None for the network's own.
        test_images: by which networks are judged.
    """

    images: int = 20_000
    tune_epochs: int = 1
    score_images: int = 2048
    batch: int = 64
    peak: float = 4e-3
    base_epochs: int | None = None
    test_images: int = 10_000


USUAL = Effort()
TRIAL = Effort(images=512, score_images=128, base_epochs=1, test_images=450)
"""For a trial of the sweep itself."""


@dataclass(frozen=True)
class Course:
    """A network with the pictures that it is trained on.

    Attributes:
        subject: the network.
        pictures: to train on and to judge by.
        effort: how much.
        seed: of weights, order and everything else.
    """

    subject: Subject
    pictures: Pictures
    effort: Effort
    seed: int

    def task(self, model: Callable[[], nn.Module], *, scoring: bool = False) -> Task:
        """The task of a network; for scoring with fewer pictures, in order and unmoved, and no judging."""
        effort, pictures = self.effort, self.pictures

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
        """The share of test pictures whose class is found, of all that are used or the first `count`."""
        images, labels = (part[: count or self.effort.test_images] for part in self.pictures.test)
        model.eval()
        found = torch.cat([model(chunk).argmax(1) for chunk in images.split(JUDGED_AT_ONCE)])
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
        """Train the unpruned network from random weights; it, and its accuracy."""
        model = self.subject.build(self.seed)
        epochs = self.effort.base_epochs or self.subject.epochs
        return model, self.train(model, epochs, peak=self.effort.peak)

    def tune(self, model: nn.Module) -> tuple[float, float]:
        """Fine-tune in place as every method's networks are; accuracy before it, on fewer pictures, and after.

        Norms are measured anew before, from the same pictures.
        """
        reestimate_norms(model, self.task(lambda: model), seed=self.seed)
        before = self.judge(model, BEFORE_IMAGES)["top1"]
        return before, self.train(model, self.effort.tune_epochs)

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
        epochs = (self.effort.base_epochs or self.subject.epochs) + self.effort.tune_epochs
        return self.train(model, epochs, peak=self.effort.peak)

    def unpruned(self, weights: Path) -> nn.Module:
        """The trained unpruned network from the file of its weights, in eval mode."""
        model = self.subject.build(self.seed)
        model.load_state_dict(load_file(weights))
        return model.eval()


def loss(model: nn.Module, batch: Batch) -> Tensor:
    """The cross entropy, one value a picture."""
    images, labels = batch
    return functional.cross_entropy(model(images), labels, reduction="none")


def open_course(name: str, seed: int, store: Path, effort: Effort) -> Course:
    """A network's training on the pictures of this machine.

    Raises:
        DataMissingError: they are not there.
    """
    subject = NETWORKS[name]
    pictures = read_digits() if name == QUICK else read_fashion(store, side=subject.side)
    return Course(subject, pictures, effort, seed)


def save_weights(model: nn.Module, path: Path) -> None:
    """Write a network's weights and statistics as safetensors."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_tensors(persistent_tensors(model), path)
