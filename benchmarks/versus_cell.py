"""One stage of one cell of the versus sweep, in a process of its own.

`python -m benchmarks.versus_cell STAGE NETWORK …` writes the stage's file; `STAGES` says what each takes.
"""

import argparse
import contextlib
import copy
import logging
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

import pruner
from benchmarks.versus_methods import METHODS, SCRATCH, solver_of
from benchmarks.versus_networks import QUICK
from benchmarks.versus_peers import (
    ByOne,
    Flops,
    Memory,
    Peer,
    Scores,
    Uniform,
    neighbours_of,
    steps_of,
    unpriced,
)
from benchmarks.versus_search import CAREFULLY, ROUGHLY, Bench, UnreachableError, search
from benchmarks.versus_store import Base, Key, Places, Plan, Table, Tuned, read_record, read_setting, write_record
from benchmarks.versus_task import Course, open_course, save_weights
from lut import open_table
from lut.errors import LatpruneError
from profiler.cut import cut
from profiler.export import to_onnx, write_onnx
from profiler.network import Network, analyze
from profiler.pinning import keeping_off
from profiler.profile import ProfileConfig, profile
from profiler.variants import prepare
from profiler.worker_client import WorkerClient
from pruner.atomic import replacing
from pruner.plan import read_ranges, write_ranges
from pruner.request import PruneConfig

STAGES = ("base", "table", "plan", "tuned")
USUAL_TABLE = ProfileConfig(max_time_s=240.0)
TRIAL_TABLE = ProfileConfig(networks_min=4, networks_max=5, target_error=0.0, runs=6)


def make_base(course: Course, places: Places, network: str) -> Base:
    """Get the unpruned network, and train a copy of it on as pruned ones are; leaves its weights and its ONNX file."""
    path = places.base(network, course.seed)
    model, accuracy = course.train_unpruned()
    save_weights(model, path.with_suffix(".safetensors"))
    write_onnx(to_onnx(model, (torch.randn(course.subject.shape),)), path.with_suffix(".onnx"))
    _, tuned = course.tune(copy.deepcopy(model))
    return Base(
        accuracy=accuracy,
        tuned=tuned,
        images=course.subject.effort.images,
        epochs=course.subject.epochs,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
    )


def make_table(course: Course, places: Places, name: str, runtime: str) -> Table:
    """Measure the network's table from nothing; times do not depend on what it has learned."""
    path = places.table(name, runtime).with_suffix(".db")
    path.parent.mkdir(parents=True, exist_ok=True)
    for old in path.parent.glob(f"{path.name}*"):
        old.unlink()
    network = analyze(course.subject.build(0), (torch.zeros(course.subject.shape),))
    report = profile(network, path, backend=runtime, config=TRIAL_TABLE if name == QUICK else USUAL_TABLE)
    return Table(networks=report.measured, unpruned_ms=report.measured_ms)


def read_scores(course: Course, places: Places, name: str, network: Network) -> Scores:
    """The Fisher scores that all of our peers share, taken once for each unpruned network.

    They are what `pruner.prune` takes from the same pictures for the methods that are ours.
    """
    path = places.base(name, course.seed).with_suffix(".scores.safetensors")
    if not path.exists():
        task = course.task(lambda: network.model, scoring=True)
        assert task.train_batches is not None
        assert task.loss is not None
        found = pruner.fisher_scores(network.model, network.groups, task.train_batches(), task.loss)
        with replacing(path) as partial:
            save_file({group: score.contiguous() for group, score in found.items()}, partial)
    return {group: score.numpy().astype(np.float64) for group, score in load_file(path).items()}


def make_peer(method: str, course: Course, places: Places, key: Key, network: Network) -> Peer:
    """The peer that a method is.

    Raises:
        ValueError: it is none.
    """
    if method.startswith("tp_"):
        from benchmarks.versus_torch_pruning import TorchPruning

        batches = course.task(lambda: network.model, scoring=True).train_batches
        assert batches is not None
        importance = method.removeprefix("tp_")
        return TorchPruning(network.model, network.inputs, network.groups, importance, batches())
    scores = read_scores(course, places, key.network, network)
    if method == "uniform":
        return Uniform(scores)
    rule, _, stepped = method.partition("_")
    prices = {"seed": Memory(network), "flops": Flops(network), "fisher": unpriced}
    if rule not in prices or stepped not in ("", "step"):
        raise ValueError(f"there is no peer {method!r}")
    steps = None
    if stepped:
        table = open_table(places.table(key.network, key.runtime).with_suffix(".db"), backend=key.runtime)
        steps = steps_of(network, table.width_step)
    return ByOne(scores, prices[rule], neighbours_of(network), steps)


def plan_peer(course: Course, places: Places, keys: Sequence[Key]) -> None:
    """Find what a peer keeps at several budgets, and keep each."""
    key, setting = keys[0], read_setting()
    model = course.unpruned(places.base(key.network, key.seed).with_suffix(".safetensors"))
    network = analyze(model, (torch.zeros(course.subject.shape),))
    peer = make_peer(key.method, course, places, key, network)
    variants = prepare(network)
    with WorkerClient(key.runtime) as client:
        client.fingerprint()
        with keeping_off(client.pid), Bench(variants, client, ROUGHLY if key.network == QUICK else CAREFULLY) as bench:
            for each in keys:
                start = time.perf_counter()
                try:
                    found = search(peer, bench.ratio, each.budget / 100)
                    plan = Plan(
                        kept={group: write_ranges(choices) for group, choices in found.kept.items()},
                        widths={group: len(choices) for group, choices in found.kept.items()},
                        sizes=network.widths,
                        ratio=found.ratio,
                        noise=found.noise,
                        strength=found.strength,
                        trials=[list(trial) for trial in found.trials],
                    )
                except UnreachableError as error:
                    plan = Plan(failure=str(error))
                plan.seconds = round(time.perf_counter() - start, 2)
                write_record(places.cell(each, "plan"), plan, setting)


def plan_ours(course: Course, places: Places, key: Key) -> Plan:
    """Have latprune prune, without fine-tuning; leaves the run, from which the network is loaded.

    Raises:
        LatpruneError: it does not; a budget that cannot be met is a `BudgetError`.
    """
    folder = places.run(key)
    shutil.rmtree(folder, ignore_errors=True)
    weights = places.base(key.network, key.seed).with_suffix(".safetensors")
    task = course.task(lambda: course.unpruned(weights), scoring=True)
    solver = solver_of(key.method)
    assert solver is not None
    usual = PruneConfig(solver=solver, importance="fisher", epochs=0, seed=key.seed, backend=key.runtime)
    config = replace(usual, **METHODS[key.method].options)
    with tempfile.TemporaryDirectory(prefix="latprune-") as temporary:
        table = Path(temporary) / "table.db"
        copy_table(places.table(key.network, key.runtime).with_suffix(".db"), table)
        run = pruner.prune(task, table, budget_fraction=key.budget / 100, config=config, out=folder)
    after, before = (float(run.result[side]["measured_ms"]) for side in ("after", "before"))
    return Plan(
        kept={group: write_ranges(choices) for group, choices in run.plan.kept.items()},
        widths=run.plan.widths,
        sizes=dict(run.plan.sizes),
        ratio=after / before,
        noise=run.result["after"]["noise"],
        blocks=[str(block) for block in run.plan.removed_blocks],
        solver=solver,
    )


def copy_table(source: Path, target: Path) -> None:
    """Copy a table, as the loop writes into its own what it measures: all cells begin with the same."""
    with contextlib.closing(sqlite3.connect(source)) as one, contextlib.closing(sqlite3.connect(target)) as other:
        one.backup(other)


def make_plans(course: Course, places: Places, keys: Sequence[Key]) -> None:
    """Plan a method's cells at several budgets; budgets that cannot be met are failures of their cells alone."""
    if METHODS[keys[0].method].solver is None:
        plan_peer(course, places, keys)
        return
    for key in keys:
        start = time.perf_counter()
        try:
            plan = plan_ours(course, places, key)
        except LatpruneError as error:
            plan = Plan(failure=f"{type(error).__name__}: {error}")
        plan.seconds = round(time.perf_counter() - start, 2)
        write_record(places.cell(key, "plan"), plan, read_setting())


def pruned_network(course: Course, places: Places, key: Key) -> torch.nn.Module:
    """A planned network as pruning left it."""
    weights = places.base(key.network, key.seed).with_suffix(".safetensors")
    if METHODS[key.method].solver is not None:
        return pruner.load(lambda: course.unpruned(weights), places.run(key))
    stored = read_record(places.cell(key, "plan"), Plan)
    assert stored is not None
    model = course.unpruned(weights)
    groups = pruner.find_groups(model, (torch.zeros(course.subject.shape),))
    remove = {
        group: sorted(set(range(stored[1].sizes[group])) - set(read_ranges(kept)))
        for group, kept in stored[1].kept.items()
    }
    return cut(model, groups, remove)


def make_tuned(course: Course, places: Places, key: Key) -> Tuned:
    """Train a planned network on, judge it and export it."""
    planned = METHODS[key.method].like or key.method
    model = pruned_network(course, places, Key(key.network, key.runtime, planned, key.budget, key.seed))
    if key.method == SCRATCH:
        before, accuracy = None, course.train_anew(model)
    else:
        before, accuracy = course.tune(model)
    path = places.onnx(key)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_onnx(to_onnx(model, (torch.randn(course.subject.shape),)), path)
    return Tuned(before=before, accuracy=accuracy, parameters=sum(p.numel() for p in model.parameters()))


def main(arguments: Sequence[str] | None = None) -> None:
    """Do the stage that the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("network")
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--runtime", default="")
    parser.add_argument("--method", default="")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--budgets", type=int, nargs="*", default=[])
    options = parser.parse_args(arguments)
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    run_stage(
        options.stage,
        [
            Key(options.network, options.runtime, options.method, budget, options.seed)
            for budget in options.budgets or [0]
        ],
        options.store,
    )


def run_stage(stage: str, keys: Sequence[Key], store: Path) -> None:
    """Do one stage of cells that differ in their budgets only, and keep what comes of it."""
    key, places, setting, start = keys[0], Places(store), read_setting(), time.perf_counter()
    course = open_course(key.network, key.seed, store)
    record: Base | Table | Tuned
    if stage == "plan":
        make_plans(course, places, keys)
        return
    if stage == "base":
        path, record = places.base(key.network, key.seed), make_base(course, places, key.network)
    elif stage == "table":
        path, record = places.table(key.network, key.runtime), make_table(course, places, key.network, key.runtime)
    else:
        path, record = places.cell(key, "tuned"), make_tuned(course, places, key)
    record.seconds = round(time.perf_counter() - start, 2)
    write_record(path, record, setting)


if __name__ == "__main__":
    main()
