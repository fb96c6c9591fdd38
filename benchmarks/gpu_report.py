"""Writes `docs/gpu-<device>.md` from what the steps of `make gpu` left."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.gpu_steps import BUDGETS, NETWORKS, Step

MEDIAN = re.compile(r"GPU Compute Time: .*?median = ([0-9.]+) ms")
"""In `trtexec`'s summary, as NVIDIA documents it; what does not fit is said, never guessed."""
CLOSE = 0.01
"""How near `trtexec`'s median is to be."""


@dataclass(frozen=True)
class Outcome:
    """What became of a step.

    Attributes:
        name: the step's.
        code: exit status, or None where it was not run.
        seconds: that it took.
        output: what it wrote to stdout.
        why: it was not run, or the end of what it wrote to stderr.
    """

    name: str
    code: int | None
    seconds: float = 0.0
    output: str = ""
    why: str = ""

    def found(self) -> Mapping[str, Any]:
        """The JSON object that it printed, or nothing."""
        try:
            value = json.loads(self.output.strip().rpartition("\n")[2])
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}


def slug(device: str) -> str:
    """A device's name as part of a file's: "NVIDIA GeForce RTX 4090" gives "geforce-rtx-4090"."""
    return re.sub(r"[^a-z0-9]+", "-", device.lower().removeprefix("nvidia ")).strip("-")


def read_trtexec(output: str) -> float | None:
    """The median of `trtexec`'s GPU compute time in ms, or None where its summary reads otherwise."""
    found = MEDIAN.findall(output)
    return float(found[-1]) if found else None


def write_report(
    device: Mapping[str, Any], setting: Mapping[str, Any], steps: Sequence[Step], outcomes: Mapping[str, Outcome]
) -> str:
    """The page as Markdown.

    Args:
        device: the GPU's facts.
        setting: date, versions, a hash of the sources.
        steps: that were planned.
        outcomes: by the step's name; one that is missing was not run.
    """
    lines = [
        f"# latprune on {device['name']}",
        "",
        "Written by `make gpu`; networks have random weights, so that only times mean something here.",
        "",
        *(f"* {key.replace('_', ' ')}: {value}" for key, value in device.items() if value is not None),
        *(f"* {key}: {_plain(value)}" for key, value in setting.items()),
        "",
        "## Tests that need a GPU",
        "",
        _tests(outcomes.get("tests")),
        "",
        "## Budgets kept",
        "",
        "| network | budget | unpruned | promised | the engine | difference of outputs | trtexec | ratio |",
        "|---|---|---|---|---|---|---|---|",
        *(_row(network, budget, outcomes) for network in NETWORKS for budget in BUDGETS),
        "",
        f"`ratio` is our median over trtexec's on the same engine; it is to lie within {CLOSE:.0%} of 1.",
        "",
        "## Every step",
        "",
        "| step | what | ended | seconds | command |",
        "|---|---|---|---|---|",
        *(_step(step, outcomes.get(step.name)) for step in steps),
    ]
    return "\n".join(lines) + "\n"


def _plain(value: Any) -> str:
    return ", ".join(f"{key} {item}" for key, item in value.items()) if isinstance(value, Mapping) else str(value)


def _tests(outcome: Outcome | None) -> str:
    if outcome is None or outcome.code is None:
        return "Not run."
    last = outcome.output.strip().rpartition("\n")[2]
    return f"{'Passed' if outcome.code == 0 else 'FAILED'}: {last}"


def _row(network: str, budget: str, outcomes: Mapping[str, Outcome]) -> str:
    run = f"{network}-{budget.rstrip('%')}"

    def read(name: str, key: str) -> float | None:
        value = outcomes[name].found().get(key) if name in outcomes else None
        return float(value) if isinstance(value, int | float) else None

    unpruned = read(f"{network}-tensorrt-unpruned", "measured_ms")
    mine = read(f"{run}-measure", "measured_ms")
    theirs = read_trtexec(outcomes[f"{run}-trtexec"].output) if f"{run}-trtexec" in outcomes else None
    ratio = mine / theirs if mine is not None and theirs else None
    difference = read(f"{run}-measure", "difference")
    cells = [
        network,
        budget,
        _ms(unpruned),
        _ms(read(f"{run}-measure", "predicted_ms")),
        _ms(mine),
        "–" if difference is None else f"{difference:.1e}",
        _ms(theirs),
        "–" if ratio is None else f"{ratio:.4f}{'' if abs(ratio - 1) <= CLOSE else ' (OFF)'}",
    ]
    return f"| {' | '.join(cells)} |"


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g} ms"


def _step(step: Step, outcome: Outcome | None) -> str:
    if outcome is None or outcome.code is None:
        ended, seconds = f"not run{f': {outcome.why}' if outcome is not None and outcome.why else ''}", ""
    else:
        ended = "well" if outcome.code == 0 else f"with {outcome.code}: {outcome.why}"
        seconds = f"{outcome.seconds:.0f}"
    words = " ".join(ended.replace("|", "/").split())
    return f"| {step.name} | {step.title} | {words} | {seconds} | `{str(step).replace('|', '/')}` |"
