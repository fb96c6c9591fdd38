"""`make engines`: engines built with no GPU, from really pruned networks: docs/engines.md; resumable.

Six networks are pruned to uneven widths (each group keeps its own random share, 30 to 100 %; no table and no budget:
what is looked at is whether the engine can be built), written as run directories, converted as `latprune export` does,
and built by TensorRT for RTX for five compute capabilities in three precisions. Weights are random and norms as
training leaves them; int8 is calibrated on random inputs, so that differences say how faithful a conversion is, and
nothing of accuracy.

Each network and each precision is a child process, and each build a worker of its own.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
import torchvision
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from benchmarks.budgets_task import with_lived_norms
from benchmarks.engines_report import write_report
from benchmarks.memory_networks import NETWORKS, PICTURE, uneven_widths
from benchmarks.settings import hash_files, setting_here
from lut.errors import LatpruneError
from lut.program import to_json
from profiler.backends import BuildSettings
from profiler.cut import cut, lost_positions, programs_after
from profiler.network import analyze
from profiler.worker_client import WorkerClient
from pruner.atomic import write_text
from pruner.conversion import convert_run
from pruner.plan import PrunePlan
from pruner.rundir import ONNX, save
from pruner.surgery import shapes_left
from pruner.task import Task

ROOT = Path(__file__).parent.parent
STORE = ROOT / "runs" / "engines"
REPORT = ROOT / "docs" / "engines.md"
PACKAGES = ("torch", "torchvision", "onnx", "onnxscript", "onnxruntime", "tensorrt_rtx_cu13")
SOURCES = ("profiler/**/*.py", "pruner/conversion.py", "pruner/calibration.py", "benchmarks/engines.py")
MADE = {
    name: NETWORKS[name] for name in ("ResNet-50", "MobileNetV2", "EfficientNet-B0", "RetinaNet, dense part", "EDSR")
} | {"ViT-B/16": (lambda: torchvision.models.vit_b_16(weights=None), PICTURE)}
CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "12.0")
PRECISIONS = ("fp32", "fp16", "int8")
WIDTHS = 1
"""Which of the uneven widths of `memory_networks`."""
BATCHES = 4


@dataclass(frozen=True)
class Cell:
    """One network in one precision for one compute capability; sizes in bytes, as the compiler bounds them.

    Attributes:
        failure: why there is no engine, else None.
        remainder: what runs where an int8 network is not quantised.
        difference: of the converted ONNX file's outputs from the fp32 file's, over the largest.
        kept, rewritten: how many nodes stayed in fp32, and linear layers became convolutions.
    """

    capability: str
    failure: str | None = None
    remainder: str | None = None
    difference: float | None = None
    kept: int = 0
    rewritten: int = 0
    engine_bytes: int | None = None
    weights_bytes: int | None = None
    activation_bytes: int | None = None
    kernels: int | None = None
    seconds: float | None = None


def main() -> None:
    """Build what is not stored yet, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=MADE, metavar="NETWORK", help=", ".join(MADE))
    parser.add_argument("--again", action="store_true", help="build stored engines anew")
    parser.add_argument("--report", action="store_true", help="write the report of what is stored, and no more")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        name, precision = given.child
        _prune(name) if precision == "prune" else _build(name, precision)
        return
    for name in () if given.report else given.only or MADE:
        for step in ("prune", *PRECISIONS):
            if given.again or not _path(name, step).is_file():
                sys.stderr.write(f"{name}, {step}\n")
                subprocess.run([sys.executable, "-m", __spec__.name, "--child", name, step], check=True, cwd=ROOT)
    stored = {name: found for name in MADE if (found := _read(name))}
    write_report(REPORT, stored, CAPABILITIES)


def made_up_task(name: str) -> Task:
    """A task around a network with random weights, whose batches are random."""
    maker, shape = MADE[name]

    def model() -> nn.Module:
        torch.manual_seed(0)
        made = with_lived_norms(maker()).eval()
        for weight in made.parameters():
            if weight.dim() > 1 and not weight.any():  # a classifier's head, silent before training
                nn.init.trunc_normal_(weight, std=0.02)
        return made

    def batches() -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(5)
        for _ in range(BATCHES):
            yield torch.randn(shape, generator=generator)

    def loss(module: nn.Module, batch: Tensor) -> Tensor:
        return torch.stack([one.square().sum() for one in tree_leaves(module(batch))]).sum()

    return Task(name, model, lambda: (torch.zeros(shape),), train_batches=batches, loss=loss)


def _prune(name: str) -> None:
    """Prune a network, and write its run directory."""
    task = made_up_task(name)
    model, inputs = task.build(), task.inputs()
    network = analyze(model, inputs)
    full = network.widths
    gone = {group: list(range(width, full[group])) for group, width in uneven_widths(full, WIDTHS).items()}
    removed = lost_positions(network.groups, gone)
    programs = tuple(to_json(program) for program in programs_after(network.groups, gone, ()))
    plan = PrunePlan(
        network.hash,
        kept={group: tuple(range(full[group] - len(choices))) for group, choices in gone.items()},
        sizes=full,
        removed=removed,
        programs=programs,
        shapes=shapes_left(model, removed),
    )
    save(cut(model, network.groups, gone), plan, _folder(name), inputs=inputs)
    before, after = (
        sum(one.numel() for one in each.parameters()) for each in (model, cut(model, network.groups, gone))
    )
    write_text(_path(name, "prune"), json.dumps({"before": before, "after": after, "form": plan.form}) + "\n")


def _build(name: str, precision: str) -> None:
    """Convert a pruned network, and build its engines."""
    run = _folder(name)
    source = onnx.load(run / ONNX)
    cells = []
    for targets in (CAPABILITIES[:1], CAPABILITIES[1:]):
        try:
            found = convert_run(
                run, source, precision, compute_capabilities=targets, task=made_up_task(name), accuracy=False
            )
        except LatpruneError as error:
            cells += [Cell(target, failure=str(error)) for target in targets]
            continue
        told = {
            "remainder": found.converted.remainder if precision == "int8" else None,
            "difference": found.difference,
            "kept": len(found.converted.kept),
            "rewritten": len(found.rewritten),
        }
        with tempfile.TemporaryDirectory(prefix="latprune-") as folder:
            path = Path(folder, "network.onnx")
            path.write_bytes(found.converted.model.SerializeToString())
            cells += [_built(path, target, told) for target in targets]
    setting = asdict(setting_here(hash_files(SOURCES), PACKAGES))
    content = {"setting": setting, "cells": [asdict(cell) for cell in cells]}
    write_text(_path(name, precision), json.dumps(content, indent=1) + "\n")


def _built(path: Path, target: str, told: dict[str, Any]) -> Cell:
    with WorkerClient("tensorrt-rtx") as client:
        reply = client.build(path, path.with_suffix(".engine"), BuildSettings((target,)))
    if reply.report is None:
        return Cell(target, failure=reply.failure, **told)
    built = reply.report
    return Cell(
        target,
        engine_bytes=built.engine_bytes,
        weights_bytes=built.weights_bytes,
        activation_bytes=built.activation_bytes,
        kernels=len(built.kernels),
        seconds=round(built.seconds, 2),
        **told,
    )


def _folder(name: str) -> Path:
    return STORE / re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _path(name: str, step: str) -> Path:
    return _folder(name) / f"engines-{step}.json"


def _read(name: str) -> dict[str, Any]:
    steps = ("prune", *PRECISIONS)
    return {step: json.loads(_path(name, step).read_text()) for step in steps if _path(name, step).is_file()}


if __name__ == "__main__":
    main()
