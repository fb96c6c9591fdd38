"""What the fidelity sweep found in short: how many networks reach the goals, what the others miss, and means."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.fidelity_figures import Figures, judge_ours, judge_peer, judge_twice
from benchmarks.fidelity_peers import PEERS
from benchmarks.fidelity_store import Cell, Reuse, Transfer
from benchmarks.settings import Setting

GOAL_NETWORK, GOAL_S = "resnet50", 120
"""The network for which a time from nothing was promised."""


@dataclass(frozen=True)
class Line:
    """What is stored of a network on a runtime."""

    name: str
    runtime: str
    setting: Setting | None
    cell: Cell | None
    transfer: Transfer | None
    reuse: Reuse | None = None

    @property
    def finished(self) -> Cell | None:
        """The cell, where it did not fail."""
        return self.cell if self.cell and self.cell.failure is None and self.cell.vectors else None


def summarize(lines: Sequence[Line]) -> str:
    """Counts, and every miss by name."""
    done = [(line, judge_ours(line.finished.vectors)) for line in lines if line.finished]
    absent = [f"{line.name} on {line.runtime}" for line in lines if line.cell is None]
    bullets = []
    if done:
        bullets.append(f"Of {len(done)} networks on a runtime {_reached(done)}")
        for runtime in dict.fromkeys(line.runtime for line, _ in done):
            own = [(line, figures) for line, figures in done if line.runtime == runtime]
            bullets.append(_of_runtime(runtime, own))
    bullets += [
        f"{line.name} on {line.runtime} from nothing: {line.finished.profiled.seconds:.0f} s (goal: {GOAL_S} s)."
        for line, _ in done
        if line.name == GOAL_NETWORK and line.finished and line.finished.profiled
    ]
    if absent:
        bullets.append(f"Not run: {', '.join(absent)}.")
    return "\n".join(f"* {bullet}" for bullet in bullets)


def summarize_unseen(lines: Sequence[Line]) -> list[str]:
    """The same of networks by which nothing was chosen; no bullet where none was run."""
    done = [(line, judge_ours(line.finished.vectors)) for line in lines if line.finished]
    if not done:
        return []
    twice = _mean([judge_twice(line.finished.vectors).mae for line, _ in done if line.finished])
    mean = _mean([figures.mae for _, figures in done])
    return [
        f"* Of {len(done)} by which nothing was chosen {_reached(done)} Mean error {mean}, measuring twice {twice}."
    ]


def _reached(done: Sequence[tuple[Line, Figures]]) -> str:
    misses = [f"{line.name} on {line.runtime} ({', '.join(m)})" for line, f in done if (m := missed(f))]
    return f"{len(done) - len(misses)} reach all four goals" + (
        f"; the others, with what they miss: {'; '.join(misses)}." if misses else "."
    )


def missed(figures: Figures) -> list[str]:
    """The goals that are not reached, with what there is instead."""
    words = {
        "mae": f"mean error {figures.mae:.1%}",
        "p95": f"95th percentile {figures.p95:.1%}",
        "tau": f"tau {number(figures.tau)}",
        "coverage": f"{percent(figures.coverage)} covered",
    }
    return [words[name] for name in figures.misses()]


def _of_runtime(runtime: str, done: Sequence[tuple[Line, Figures]]) -> str:
    vectors = [line.finished.vectors for line, _ in done if line.finished]
    twice = [judge_twice(own).mae for own in vectors]
    text = f"{runtime}: mean error {_mean([figures.mae for _, figures in done])}, measuring twice {_mean(twice)}"
    for peer in PEERS:
        found = [figures.mae for own in vectors if (figures := judge_peer(own, peer))]
        text += f"; {peer} {_mean(found)}" + (f" (of {len(found)} networks)" if 0 < len(found) < len(done) else "")
    return text + " (means over networks)."


def _mean(values: Sequence[float]) -> str:
    return f"{sum(values) / len(values):.1%}" if values else "–"


def percent(share: float | None) -> str:
    """A share as it is shown; nothing for None."""
    return "" if share is None else f"{share:.1%}"


def number(tau: float | None) -> str:
    """A rank correlation as it is shown."""
    return "–" if tau is None else f"{tau:.3f}"
