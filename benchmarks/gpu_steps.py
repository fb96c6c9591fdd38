"""What `make gpu` runs, step by step: each a command line, so that whoever doubts a figure can run it alone."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

NETWORKS = ("resnet50", "mobilenet_v2")
BUDGETS = ("70%", "50%")
VARIANTS = 40
"""Networks that a table is measured from."""
LATPRUNE = (sys.executable, "-m", "pruner.main")
TRTEXEC = ("--useCudaGraph", "--noDataTransfers", "--useSpinWait", "--warmUp=500", "--duration=10", "--iterations=100")
TASK = """from benchmarks.gpu_task import make

model, example_inputs, train_batches, loss = make({name!r})
"""


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        name: unique; also the name of what is stored of it.
        command: to run in the repository's root.
        title: what it shows, in words.
        needs: steps without which it makes no sense.
    """

    name: str
    command: tuple[str, ...]
    title: str
    needs: tuple[str, ...] = ()

    def __str__(self) -> str:
        return shlex.join(self.command)


def latprune(*words: str) -> tuple[str, ...]:
    """Our own command line, answering in JSON."""
    return (*LATPRUNE, *words, "--json")


def plan_steps(store: Path, capability: str | None, backends: Sequence[str], trtexec: str | None) -> tuple[Step, ...]:
    """All steps on a machine, in order.

    Args:
        store: the folder of everything that is written.
        capability: compute capability of the GPU, which engines are built for.
        backends: of those that use a GPU, the ones that are here.
        trtexec: path of NVIDIA's tool, or None.
    """
    steps = [
        Step("tests", (sys.executable, "-m", "pytest", "-q", "-m", "gpu", "--every-gpu-test"), "all tests marked gpu")
    ]
    for network in NETWORKS:
        task = str(store / f"{network}.py")
        for backend in backends:
            measured = Step(
                f"{network}-{backend}-unpruned",
                latprune("measure", task, "--backend", backend),
                f"{network}, unpruned, on {backend}",
            )
            steps.append(measured)
            if backend == "tensorrt":
                steps += _prune_steps(store, network, task, capability, trtexec)
    if "tensorrt-rtx" in backends and "tensorrt" in backends and capability is not None:
        for network in NETWORKS:
            for budget in BUDGETS:
                for precision in ("fp32", "fp16"):
                    steps += _rtx_steps(store, network, budget, capability, precision)
    return tuple(steps)


def _prune_steps(store: Path, network: str, task: str, capability: str | None, trtexec: str | None) -> list[Step]:
    """Table, plans, engines and figures with classic TensorRT."""
    table = str(store / "tensorrt.db")
    profiled, chosen = f"{network}-table", ("--backend", "tensorrt")
    inspected = store / f"{network}-inspector.json"
    steps = [
        Step(
            profiled,
            latprune("profile", task, "--table", table, "--backend", "tensorrt", "--networks", str(VARIANTS)),
            f"table of {network}",
        ),
        Step(
            f"{network}-inspector",
            (sys.executable, "-m", "benchmarks.gpu_inspect", task, str(inspected)),
            f"the inspector's words and the layers' times of {network}, as recorded artefacts",
        ),
    ]
    for budget in BUDGETS:
        run = store / f"{network}-{budget.rstrip('%')}"
        pruned, exported = f"{run.name}-prune", f"{run.name}-export"
        engine = run / "model.engine"
        target = ("--compute-capability", capability) if capability is not None else ()
        steps += [
            Step(
                pruned,
                latprune(
                    "prune", task, "--table", table, *chosen, "--budget", budget, "--epochs", "0", "--out", str(run)
                ),
                f"{network} pruned to {budget}",
                (profiled,),
            ),
            Step(
                exported,
                latprune("export", str(run), *chosen, *target, "--out", str(engine)),
                f"engine of {network} at {budget}",
                (pruned,),
            ),
            Step(
                f"{run.name}-measure",
                latprune("measure", str(engine)),
                f"engine of {network} at {budget}, measured and compared",
                (exported,),
            ),
        ]
        if trtexec is not None:
            steps.append(
                Step(
                    f"{run.name}-trtexec",
                    (trtexec, f"--loadEngine={engine}", *TRTEXEC),
                    f"the same engine by NVIDIA's trtexec, {network} at {budget}",
                    (exported,),
                )
            )
    return steps


def _rtx_steps(store: Path, network: str, budget: str, capability: str, precision: str) -> list[Step]:
    """The runs pruned for classic TensorRT, as engines of TensorRT for RTX."""
    run = store / f"{network}-{budget.rstrip('%')}"
    engine = run / f"rtx-{precision}.engine"
    exported = f"{run.name}-rtx-{precision}-export"
    rtx = ("--backend", "tensorrt-rtx", "--compute-capability", capability)
    return [
        Step(
            exported,
            latprune("export", str(run), *rtx, "--precision", precision, "--out", str(engine)),
            f"TensorRT for RTX, {precision}, {network} at {budget}",
            (f"{run.name}-prune",),
        ),
        Step(
            f"{run.name}-rtx-{precision}-measure",
            latprune("measure", str(engine)),
            f"TensorRT for RTX, {precision}, {network} at {budget}, measured and compared",
            (exported,),
        ),
    ]
