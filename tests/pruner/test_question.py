"""Scores do not depend on what was drawn before, whatever generator a task draws its batches with."""

import random
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from pruner.question import read_subject, score
from pruner.request import PruneConfig
from pruner.task import Task


def train_batches() -> Iterator[tuple[Tensor, Tensor]]:
    inputs = np.random.randn(6, 5) + random.random() + torch.rand(6, 5).numpy()
    yield torch.from_numpy(inputs).float(), torch.from_numpy(np.random.randint(0, 3, 6))


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="sum")


def test_scores_are_those_of_their_seed_and_the_generators_are_put_back() -> None:
    network = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 3))
    task = Task("t", lambda: network, lambda: (torch.zeros(1, 5),), train_batches, loss)

    def scored(seed: int) -> list[float]:
        config = PruneConfig(seed=seed)
        subject = read_subject(task, config, lambda _: None)
        found = score(task, subject.model, subject.groups, fixed=frozenset(), config=config, progress=lambda _: None)
        return [float(lost) for ranking in found.values() for lost in ranking.lost]

    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    first = scored(0)
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    assert before[:2] == after[:2]
    assert torch.equal(before[2], after[2])
    random.random(), np.random.rand(), torch.rand(1)
    assert scored(0) == first
    assert scored(1) != first
