"""The report of `make fisher`: times and peaks beside plain training, and whether they are what they may be."""

import datetime
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.coverage_store import read_versions
from profiler.device import read_cpu

PACKAGES = ("torch", "torchvision")
BOUND, GOAL = 1.1, 1.05
WORDS = {
    "plain": "forward and backward, as in training",
    "hooks": "the same with a hook and an einsum a convolution",
    "training": "the same with scores, while training",
    "fisher": "scores alone, `fisher`",
    "fisher-set": "scores alone, `fisher-set`",
    "check": "once before: is the loss a sum?",
}
"""What the variants do."""
JUDGED = ("training", "fisher", "fisher-set")


@dataclass(frozen=True)
class Size:
    """Of the runs: samples a batch, side of the pictures, rounds that count."""

    samples: int = 8
    side: int = 224
    rounds: int = 15


@dataclass(frozen=True)
class Row:
    """One variant on one network.

    Attributes:
        times_ms: of each round.
        peak_bytes: above what the process held before the first batch.
    """

    times_ms: list[float]
    peak_bytes: int


def ratios(row: Row, plain: Row) -> list[float]:
    """Of times, round by round."""
    return [one / other for one, other in zip(row.times_ms, plain.times_ms, strict=True)]


def make_table(measured: Mapping[str, Mapping[str, Row]]) -> list[str]:
    """The figures in Markdown."""
    lines = [
        "| network | | time (ms) | of plain | quartiles | peak memory (MB) | of plain |",
        "|---|---|---|---|---|---|---|",
    ]
    for network, rows in measured.items():
        for variant, row in rows.items():
            low, middle, high = statistics.quantiles(ratios(row, rows["plain"]), n=4, method="inclusive")
            cells = [
                network,
                WORDS[variant],
                f"{statistics.median(row.times_ms):.0f}",
                f"{middle:.3f}",
                f"{low:.3f}–{high:.3f}",
                f"{row.peak_bytes / 1e6:.0f}",
                f"{row.peak_bytes / rows['plain'].peak_bytes:.3f}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def judge(measured: Mapping[str, Mapping[str, Row]]) -> list[str]:
    """For each network and each way to score whether it costs what it may."""
    lines = []
    for network, rows in measured.items():
        for variant in JUDGED:
            time = statistics.median(ratios(rows[variant], rows["plain"]))
            memory = rows[variant].peak_bytes / rows["plain"].peak_bytes
            said = "missed" if max(time, memory) > BOUND else "kept" if time > GOAL else "kept, and the goal reached"
            lines.append(f"* {network}, {variant}: {time:.3f} in time, {memory:.3f} in memory: {said}.")
    return lines


def make_report(measured: Mapping[str, Mapping[str, Row]], size: Size, threads: int) -> str:
    """All of it, in Markdown."""
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    versions = ", ".join(f"{name} {version}" for name, version in read_versions(PACKAGES).items())
    origin = (
        f"`make fisher`, {today}, on {read_cpu().name}, {threads} threads; {versions}. Batches of {size.samples} "
        f"pictures of {size.side}×{size.side}, float32; {size.rounds} rounds by turns, each variant run "
        "once more before it is timed: median times, median and quartiles of each round's ratio to plain."
    )
    bounds = f"Allowed are {BOUND} times plain, in time and in memory; the goal is {GOAL} in time."
    return "\n".join([origin, "", *make_table(measured), "", bounds, "", *judge(measured)])
