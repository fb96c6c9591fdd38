"""What a child process of the coverage sweep does around its measurement: one network, one side, JSON on stdout."""

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict

import torch
from torch import Tensor, nn

from benchmarks.coverage_measures import quiet
from benchmarks.coverage_models import Subject, find_row, make_subject
from benchmarks.coverage_records import Ours, Peer

Say = Callable[[Ours | Peer], None]
"""Told the cell as it stands, after each stage: what a child that is stopped has said is kept."""

Untimed = Callable[[], AbstractContextManager[None]]
"""Opens a part of the work in which nothing is timed: it may use more threads."""

Measure = Callable[[Subject, Say, Untimed], Ours | Peer]


class Small(nn.Module):
    """A network that takes no time, for warming up."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3)

    def forward(self, picture: Tensor) -> Tensor:
        """Two convolutions with a norm between."""
        found: Tensor = self.last(torch.relu(self.norm(self.first(picture))))
        return found


def say(cell: Ours | Peer) -> None:
    """Write the cell as one line of JSON; the last line counts."""
    sys.stdout.write(json.dumps(asdict(cell)) + "\n")
    sys.stdout.flush()


def small_subject() -> Subject:
    """The warm-up's network: imports, and what the libraries set up when they first run, are not to be measured."""
    inputs = (torch.randn(1, 3, 12, 12),)
    return Subject(Small().eval(), inputs, (inputs,), (inputs,), lambda model: model)


@contextlib.contextmanager
def with_threads(threads: int) -> Iterator[None]:
    """Give PyTorch another number of threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def main(measure: Measure, warm_up: Callable[[Subject], None]) -> None:
    """Measure the network that the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("--threads", type=int, default=1, help="for what is timed")
    parser.add_argument("--check-threads", type=int, default=1, help="for all that is not")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with quiet():
        warm_up(small_subject())
        subject = make_subject(find_row(arguments.name))
    say(measure(subject, say, lambda: with_threads(arguments.check_threads)))
