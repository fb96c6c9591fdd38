"""Scores are taken where the network trains.

No second device is here. Double precision stands in for one: a network and batches "moved" there and back meet no
tensor that stayed behind without an error, since PyTorch multiplies no single precision with double.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from pruner.importance import RANKINGS
from pruner.narrow import names_in
from pruner.placement import Batches, PlacementError, batches_on
from pruner.question import BLIND, read_subject, removable_blocks, score, score_blocks
from pruner.removal import renamed_blocks
from pruner.request import PruneConfig
from pruner.task import Task, load_task

EXAMPLE = Path(__file__).with_name("example_task.py")
CPU, ELSEWHERE = torch.device("cpu"), torch.device("meta")


def double(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Another device, for which double precision stands; what was there, in order."""
    told: list[str] = []

    @contextlib.contextmanager
    def placed(modules: Sequence[nn.Module], device: torch.device) -> Iterator[None]:
        assert device == ELSEWHERE
        told.append("there")
        for module in modules:
            module.double()
        yield
        for module in modules:
            module.float()
        told.append("back")

    def moved(batch: Any, device: torch.device) -> Any:
        assert device == ELSEWHERE
        told.append("batch")
        return tree_map_only(Tensor, double, batch)

    monkeypatch.setattr("pruner.question.choose_device", lambda model, wanted: ELSEWHERE)
    monkeypatch.setattr("pruner.question.placed", placed)
    monkeypatch.setattr("pruner.placement.moved", moved)
    return told


@pytest.mark.parametrize("importance", sorted(RANKINGS))
def test_scores_are_those_of_the_cpu_and_the_network_comes_back(importance: str, elsewhere: list[str]) -> None:
    task = load_task(str(EXAMPLE))
    config = PruneConfig(importance=importance)
    subject = read_subject(task, config, lambda _: None)
    before = {name: tensor.clone() for name, tensor in subject.model.state_dict().items()}
    own = {id(parameter) for parameter in subject.model.parameters()}
    found = score(task, subject.model, subject.groups, fixed=frozenset(), config=config, progress=lambda _: None)
    assert elsewhere == ([] if importance in BLIND else ["there", "batch", "batch", "batch", "back"])
    batches = task.train_batches() if task.train_batches else ()
    here = RANKINGS[importance](subject.model, subject.groups, batches, task.loss)
    for name, ranking in here.items():
        assert torch.allclose(torch.as_tensor(found[name].lost), torch.as_tensor(ranking.lost).double(), rtol=1e-4)
    assert all(torch.equal(tensor, before[name]) for name, tensor in subject.model.state_dict().items())
    assert {id(parameter) for parameter in subject.model.parameters()} == own


def test_blocks_are_scored_there_too(elsewhere: list[str]) -> None:
    task = load_task(str(EXAMPLE))
    config = PruneConfig()
    subject = read_subject(task, config, lambda _: None)
    blocks = removable_blocks(subject)
    named = renamed_blocks(blocks, names_in(subject.model, subject.network.model))
    rankings: Any = dict.fromkeys(name for block in blocks for name in block.groups)
    found = score_blocks(task, subject.model, named, blocks, rankings, config=config, progress=lambda _: None)
    assert [each.name for each in found] == [block.name for block in blocks]
    assert all(each.lost > 0 for each in found)
    assert elsewhere == ["there", "batch", "batch", "batch", "back"]


def test_a_device_that_is_not_here_is_refused_before_any_batch() -> None:
    def never() -> Iterator[Any]:
        raise AssertionError

    task = Task("t", lambda: nn.Linear(3, 2), lambda: (torch.zeros(1, 3),), never, lambda model, batch: batch)
    config = PruneConfig(train_device="cuda:99")
    with pytest.raises(PlacementError, match="cuda:99"):
        score(task, task.build(), [], fixed=frozenset(), config=config, progress=lambda _: None)


def test_batches_are_as_many_as_they_were_and_on_the_cpu_left_alone() -> None:
    given = [torch.ones(2), torch.ones(3)]
    assert batches_on(given, CPU) is given
    there = batches_on(given, ELSEWHERE)
    assert isinstance(there, Batches)
    assert len(there) == 2
    assert [batch.device.type for batch in there] == ["meta", "meta"]
    assert [batch.shape[0] for batch in batches_on(iter(given), ELSEWHERE)] == [2, 3]
