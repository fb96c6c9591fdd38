"""`latprune prune`: prune a network to a budget, fine-tune it, and check that the promise was kept."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pruner.commands.options import (
    Batch,
    Capability,
    ChosenBackend,
    ChosenFingerprint,
    ChosenPrecision,
    ChosenThreads,
    Device,
    Freeze,
    Input,
    Json,
    MemoryOf,
    MemoryTarget,
    Selection,
    TablePath,
    TaskSpec,
    find_task,
)
from pruner.commands.output import complain, print_json, results
from pruner.commands.parsing import Bound, OptionError, parse_budget, parse_memory
from pruner.commands.progress import working
from pruner.show import show_result

if TYPE_CHECKING:
    from pruner.prune import PruneConfig

NORMALIZATIONS = ("latency", "memory", "flops", "none")


def prune(
    task: TaskSpec,
    table: TablePath,
    out: Annotated[Path, typer.Option("--out", metavar="RUN/", help="The run's directory.", show_default=False)],
    budget: Annotated[
        str | None, typer.Option("--budget", metavar="8ms|60%", help="Latency, or a share of the unpruned network's.")
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            "--memory", metavar="40MB|50%", help="Weights + peak activations + workspace; MB = 10^6, MiB = 2^20."
        ),
    ] = None,
    importance: Annotated[str, typer.Option("--importance", help="How channels are scored.")] = "fisher",
    normalize: Annotated[
        str | None,
        typer.Option(
            "--normalize",
            metavar="|".join(NORMALIZATIONS),
            help="What importance is divided by: latency unless said; without --budget, memory.",
            show_default=False,
        ),
    ] = None,
    solver: Annotated[
        str | None,
        typer.Option(
            "--solver",
            help="What chooses the widths: milp unless said; with --normalize, greedy.",
            show_default=False,
        ),
    ] = None,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Prune in so many rounds.")] = 1,
    epochs: Annotated[int | None, typer.Option("--epochs", min=0, help="Of fine-tuning.")] = None,
    distill: Annotated[
        float,
        typer.Option("--distill", min=0.0, max=1.0, help="The unpruned network's share in what is trained for."),
    ] = 0.0,
    train_device: Annotated[
        str | None,
        typer.Option("--train-device", help="Where to train, such as cuda:1; else a GPU if there is one."),
    ] = None,
    mixed_precision: Annotated[
        str, typer.Option("--mixed-precision", metavar="no|fp16|bf16", help="Of training.")
    ] = "no",
    seed: Annotated[int, typer.Option("--seed", help="Of everything random.")] = 0,
    freeze: Freeze = None,
    min_width: Annotated[int, typer.Option("--min-width", min=1, help="Channels that every group keeps at least.")] = 1,
    blocks: Annotated[
        bool, typer.Option("--blocks", help="Residual blocks may go wholly, where that is worth more than channels.")
    ] = False,
    step: Annotated[
        int | None,
        typer.Option(
            "--step",
            min=1,
            help="Widths are multiples of this; unless said, the device's own steps, or 1 with another --normalize.",
            show_default=False,
        ),
    ] = None,
    backend: ChosenBackend = None,
    device: Device = None,
    compute_capability: Capability = None,
    precision: ChosenPrecision = None,
    threads: ChosenThreads = None,
    fingerprint: ChosenFingerprint = None,
    memory_of: MemoryOf = None,
    input: Input = None,
    batch: Batch = None,
    allow_difference: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-difference", metavar="FIELD", help="Accept a table whose fingerprint differs in this; repeatable."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start anew, whatever RUN/ holds.")] = False,
    json: Json = False,
) -> None:
    """Prune a network to a budget against a table. The same command resumes an unfinished RUN/."""
    latency = Bound() if budget is None else parse_budget(budget)
    size = Bound() if memory is None else parse_memory(memory)
    if budget is None and memory is None:
        raise OptionError("prune needs a bound: --budget (8ms, 60%), --memory (40MB, 50%), or both")
    if normalize is not None and normalize not in NORMALIZATIONS:
        raise OptionError(f"--normalize {normalize} is not known.\nGive one of: {', '.join(NORMALIZATIONS)}")
    with working() as progress:
        from pruner.prune import prune as run

        solver = solver or ("greedy" if normalize else "milp")
        check_solver(solver, normalize)
        rows = Selection(backend, device, compute_capability, precision, threads, fingerprint).open(table)
        meant = MemoryTarget.read(memory_of, rows)
        given = {
            "importance": importance,
            "normalize": normalize or ("memory" if budget is None else "latency"),
            "solver": solver,
            "rounds": rounds,
            "distill": distill,
            "train_device": train_device,
            "mixed_precision": mixed_precision,
            "seed": seed,
            "freeze": tuple(freeze or ()),
            "min_width": min_width,
            "step": step,
            "blocks": blocks,
            "backend": rows.fingerprint.runtime,
            "threads": rows.fingerprint.threads or 1,
            "memory_of": meant.runtime if memory_of else None,
            "memory_capability": meant.capability,
            "memory_precision": meant.precision,
            "allow_differences": tuple(allow_difference or ()),
        }
        done = run(
            find_task(task, input, batch),
            rows,
            budget_ms=latency.value,
            budget_fraction=latency.fraction,
            memory_bytes=None if size.value is None else int(size.value),
            memory_fraction=size.fraction,
            config=_config(given, epochs),
            out=out,
            overwrite=overwrite,
            progress=progress,
        )
    failed = [check.name for check in done.checks if not check.passed]
    if json:
        print_json({**done.result, "met": done.met, "checks": done.checks, "out": str(out)})
    else:
        show_result(done.result, done.checks, results(), out=out)
    if failed or not done.met:
        complain(f"the goal was missed: {', '.join(failed) or 'the budget is not met'}")
        raise typer.Exit(1)


def check_solver(name: str, normalize: str | None) -> None:
    """Refuse `--normalize` with a solver that does not rank by a ratio.

    Raises:
        OptionError: says which solvers take the option.
        LatpruneError: there is no such solver.
    """
    from pruner.solvers import SOLVERS, get_solver

    solver = get_solver(name)
    if normalize is not None and not solver.ranks_by_ratio:
        ranking = ", ".join(other.name for other in SOLVERS if other.ranks_by_ratio)
        raise OptionError(f"--normalize does not go with --solver {name}.\nOnly these rank by a ratio: {ranking}")


def _config(given: dict[str, Any], epochs: int | None) -> "PruneConfig":
    from pruner.prune import PruneConfig

    return PruneConfig(**given) if epochs is None else PruneConfig(**given, epochs=epochs)
