"""`make gpu`: all that needs an NVIDIA GPU, in one command; resumable. `docs/gpu-<device>.md`.

It runs the tests marked gpu, measures, builds a table, prunes ResNet-50 and MobileNetV2 to budgets, exports, measures
the engines, compares with trtexec where that is on the PATH, and keeps what TensorRT says as recorded artefacts.
`--plan` only tells the commands; `--report` only writes the page anew; `--again` forgets what was run.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.gpu_report import Outcome, slug, write_report
from benchmarks.gpu_steps import NETWORKS, TASK, Step, plan_steps
from benchmarks.settings import hash_files, setting_here
from profiler.backends import statuses
from profiler.nvml import GpuFacts, find_gpu
from pruner.atomic import write_text

ROOT = Path(__file__).parent.parent
STORE = ROOT / "runs" / "gpu"
DOCS = ROOT / "docs"
ON_GPU = ("tensorrt", "tensorrt-rtx", "onnxruntime-cuda", "onnxruntime-tensorrt")
PACKAGES = ("torch", "torchvision", "onnx", "tensorrt", "tensorrt-rtx-cu13", "onnxruntime-gpu", "cuda-bindings")
SOURCES = ("lut/**/*.py", "profiler/**/*.py", "pruner/**/*.py", "benchmarks/gpu*.py")
LAST_WORDS = 300
"""Characters of stderr that are kept of a step that failed."""
PLANNED_FOR = "8.6"
"""The compute capability in a plan that is only told, where there is no GPU."""


def run_steps(
    steps: Sequence[Step], store: Path, *, run: Callable[[Step], Outcome], say: Callable[[str], None]
) -> dict[str, Outcome]:
    """Run what has not been run well before; what needs a step that failed is not run, and says so."""
    outcomes: dict[str, Outcome] = {}
    (store / "steps").mkdir(parents=True, exist_ok=True)
    for number, step in enumerate(steps, 1):
        kept = store / "steps" / f"{step.name}.json"
        before = Outcome(**json.loads(kept.read_text())) if kept.is_file() else None
        if before is not None and before.code == 0:
            outcomes[step.name] = before
            continue
        missing = [name for name in step.needs if outcomes[name].code != 0]
        if missing:
            outcome = Outcome(step.name, None, why=f"{', '.join(missing)} did not end well")
        else:
            say(f"[{number}/{len(steps)}] {step.title}: {step}")
            outcome = run(step)
        outcomes[step.name] = outcome
        write_text(kept, json.dumps(asdict(outcome), indent=1) + "\n")
    return outcomes


def run_step(step: Step) -> Outcome:
    """Run one command in the repository's root."""
    start = time.perf_counter()
    done = subprocess.run(step.command, cwd=ROOT, capture_output=True, text=True, check=False)
    why = "" if done.returncode == 0 else done.stderr.strip()[-LAST_WORDS:]
    return Outcome(step.name, done.returncode, time.perf_counter() - start, done.stdout, why)


def main(arguments: Sequence[str] | None = None, *, gpu: Callable[[], GpuFacts | str] = find_gpu) -> int:
    """Run, report, and give the exit status: 0 only if every step ended well."""
    parser = argparse.ArgumentParser(prog="make gpu", description=__doc__)
    parser.add_argument("--plan", action="store_true", help="tell the commands, run nothing")
    parser.add_argument("--report", action="store_true", help="write the page from what is stored")
    parser.add_argument("--again", action="store_true", help="forget what was run")
    options = parser.parse_args(arguments)
    found = gpu()
    if options.plan:
        capability = PLANNED_FOR if isinstance(found, str) else found.compute_capability
        for step in plan_steps(STORE / "DEVICE", capability, ON_GPU, shutil.which("trtexec") or "trtexec"):
            sys.stdout.write(f"{step}\n")
        return 0
    if isinstance(found, str):
        sys.stderr.write(f"make gpu needs an NVIDIA GPU, and there is none here: {found}\n")
        return 2
    store = STORE / slug(found.name)
    if options.again:
        shutil.rmtree(store, ignore_errors=True)
    store.mkdir(parents=True, exist_ok=True)
    for network in NETWORKS:
        write_text(store / f"{network}.py", TASK.format(name=network))
    here = [status.name for status in statuses() if status.name in ON_GPU and "measures" in status.abilities]
    steps = plan_steps(store, found.compute_capability, here, shutil.which("trtexec"))
    if options.report:
        stored = [store / "steps" / f"{step.name}.json" for step in steps]
        outcomes = {path.stem: Outcome(**json.loads(path.read_text())) for path in stored if path.is_file()}
    else:
        outcomes = run_steps(steps, store, run=run_step, say=lambda line: print(line, file=sys.stderr, flush=True))  # noqa: T201
    setting = asdict(setting_here(hash_files(SOURCES), PACKAGES))
    report = DOCS / f"gpu-{slug(found.name)}.md"
    write_text(report, write_report(asdict(found), setting, steps, outcomes))
    left = [step.name for step in steps if step.name not in outcomes or outcomes[step.name].code != 0]
    absent = [name for name in ON_GPU if name not in here]
    sys.stderr.write(f"{report}\n" + "".join(f"did not end well: {name}\n" for name in left))
    if "tensorrt" in absent:
        sys.stderr.write("classic TensorRT is not here: no table, no plans. latprune backends says what is missing.\n")
        return 1
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
