"""`make fisher`: what Fisher scores cost beside training, in time and in memory.

Times are taken by turns in one process, so that what the machine does meanwhile falls on all alike. Peak memory is
taken in a process for each variant. A short trial that writes nothing: `make fisher FISHER=--quick`.
"""

import argparse
import gc
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.fisher_overhead_report import Row, Size, make_report
from lut.errors import LatpruneError
from lut.records import ChannelGroup
from profiler.trial import find_groups
from pruner.atomic import write_text
from pruner.importance.batches import SumCheck
from pruner.importance.fisher_set import Products
from pruner.importance.gradients import mask_gradients, weights_at_rest
from pruner.importance.owners import Owners

ROOT = Path(__file__).parent.parent
REPORT = ROOT / "docs" / "fisher.md"
MARK = "<!-- figures of `make fisher` -->"
"""What stands behind this line in the report is written anew."""
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RETURNING = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
"""So that glibc gives back what is freed: the peak is then of what is alive, not of how the heap came to be cut up."""

KEEPING = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**62), "MALLOC_TOP_PAD_": str(2**26)}
"""So that glibc keeps what is freed: else a tenth of the time is the kernel clearing pages, for one variant or another
as the heap happens to lie."""

Batch = tuple[Tensor, Tensor]


QUICK = Size(2, 64, 2)

NETWORKS: Mapping[str, Callable[[], nn.Module]] = {
    "ResNet-50": torchvision.models.resnet50,
    "MobileNetV2": torchvision.models.mobilenet_v2,
}


@dataclass
class Subject:
    """A network, a batch, and what is kept of the scores so far."""

    model: nn.Module
    groups: Sequence[ChannelGroup]
    owners: Owners
    batch: Batch
    sums: dict[str, Tensor] = field(default_factory=dict)
    products: dict[str, Products] = field(default_factory=dict)


def make(name: str, size: Size) -> Subject:
    """A network with random weights, and a batch of random pictures."""
    torch.manual_seed(0)
    model = NETWORKS[name]()
    images = torch.randn(size.samples, 3, size.side, size.side)
    groups = find_groups(model, (images[:1],))
    labels = torch.arange(size.samples)
    return Subject(model, groups, Owners(model, groups), (images, labels))


def loss(model: nn.Module, batch: Batch) -> Tensor:
    """One value a sample."""
    return functional.cross_entropy(model(batch[0]), batch[1], reduction="none")


def run_plain(subject: Subject) -> None:
    """Forward and backward, as in training."""
    subject.model.train()
    loss(subject.model, subject.batch).sum().backward()


def run_hooks(subject: Subject) -> None:
    """The same with the first thing that comes to mind: a hook and an einsum a convolution."""

    def listen(_: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        (source,) = args
        entering = source.view_as(source)
        if source.requires_grad:
            entering.register_hook(
                lambda gradient: found.append(torch.einsum("ncx,ncx->nc", source.flatten(2), gradient.flatten(2)))
            )
        return (entering,)

    found: list[Tensor] = []
    convolutions = [
        module for module in subject.model.modules() if isinstance(module, nn.Conv2d) and module.groups == 1
    ]
    handles = [module.register_forward_pre_hook(listen) for module in convolutions]
    run_plain(subject)
    for handle in handles:
        handle.remove()


def run_training(subject: Subject) -> None:
    """The same with scores collected by latprune on the way."""
    subject.model.train()
    _add(subject, mask_gradients(subject.model, subject.batch, loss, subject.owners)[0])


def run_scoring(subject: Subject) -> None:
    """What `fisher` does with a batch."""
    subject.model.eval()
    with weights_at_rest(subject.model):
        _add(subject, mask_gradients(subject.model, subject.batch, loss, subject.owners)[0])


def run_scoring_sets(subject: Subject) -> None:
    """What `fisher-set` does with a batch."""
    subject.model.eval()
    with weights_at_rest(subject.model):
        gradients, _ = mask_gradients(subject.model, subject.batch, loss, subject.owners)
    for name, choices in subject.owners.ranges.items():
        products = subject.products.setdefault(name, Products())
        products.add(gradients[:, choices.start : choices.stop])


def run_check(subject: Subject) -> None:
    """What scoring does once, before the first batch."""
    subject.model.eval()
    SumCheck()(subject.model, subject.batch, loss)


def _add(subject: Subject, gradients: Tensor) -> None:
    for name, choices in subject.owners.ranges.items():
        squares = gradients[:, choices.start : choices.stop].double().square().sum(0)
        subject.sums[name] = subject.sums[name] + squares if name in subject.sums else squares


VARIANTS: Mapping[str, Callable[[Subject], None]] = {
    "plain": run_plain,
    "hooks": run_hooks,
    "training": run_training,
    "fisher": run_scoring,
    "fisher-set": run_scoring_sets,
    "check": run_check,
}


def time_by_turns(
    subject: Subject, rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """All variants in each round, in another order each; each once before it is timed, as training steps follow steps.

    Else a variant would pay for the memory that the one before it gave back, and only some do.
    """
    names = list(VARIANTS)
    times: dict[str, list[float]] = {name: [] for name in names}
    order = random.Random(0)
    gc.disable()
    try:
        for _ in range(rounds):
            gc.collect()
            for name in order.sample(names, len(names)):
                for timed in (False, True):
                    subject.model.zero_grad()
                    started = clock()
                    VARIANTS[name](subject)
                    if timed:
                        times[name].append((clock() - started) * 1e3)
    finally:
        gc.enable()
    return times


def measure_peak(name: str, variant: str, size: Size) -> int:
    """Bytes that two batches take at most, above what this process held before (Linux)."""
    subject = make(name, size)
    gc.collect()
    CLEAR.write_text("5")  # the peak so far is forgotten, among it that of finding the groups
    before = _read_status("VmRSS")
    for _ in range(2):
        subject.model.zero_grad()
        VARIANTS[variant](subject)
    return _read_status("VmHWM") - before


def _read_status(key: str) -> int:
    for line in STATUS.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return int(value.split()[0]) * 1024
    raise LatpruneError(f"{STATUS} does not tell {key}: peak memory can be measured on Linux only.")


def run_apart(what: str, asked: Sequence[str | int], malloc: Mapping[str, str]) -> Any:
    """Have a process of its own measure "times" or a "peak", with glibc told how to treat what is freed."""
    command = [sys.executable, "-m", "benchmarks.fisher_overhead", f"--{what}", json.dumps(asked)]
    environment = {**os.environ, **malloc}
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def measure(name: str, size: Size, threads: int) -> dict[str, Row]:
    """Times and peaks of all variants on one network."""
    times = run_apart("times", [name, size.samples, size.side, size.rounds, threads], KEEPING)
    return {
        variant: Row(times[variant], run_apart("peak", [name, size.samples, size.side, threads, variant], RETURNING))
        for variant in VARIANTS
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=NETWORKS, metavar="NETWORK", help=", ".join(NETWORKS))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="tiny batches; prints the figures, and writes no report")
    parser.add_argument("--times", help=argparse.SUPPRESS)
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.times:
        name, samples, side, rounds, threads = json.loads(given.times)
        torch.set_num_threads(threads)
        sys.stdout.write(json.dumps(time_by_turns(make(name, Size(samples, side)), rounds)))
        return
    if given.peak:
        name, samples, side, threads, variant = json.loads(given.peak)
        torch.set_num_threads(threads)
        sys.stdout.write(json.dumps(measure_peak(name, variant, Size(samples, side))))
        return
    size = QUICK if given.quick else Size()
    measured = {}
    for name in given.only or NETWORKS:
        sys.stderr.write(f"{name}\n")
        measured[name] = measure(name, size, given.threads)
    report = make_report(measured, size, given.threads)
    if given.quick or given.only:
        sys.stdout.write(report + "\n")
        return
    text = REPORT.read_text() if REPORT.is_file() else f"# What Fisher scores cost\n\n{MARK}\n"
    write_text(REPORT, text[: text.index(MARK) + len(MARK)] + "\n\n" + report + "\n")


if __name__ == "__main__":
    main()
