"""What the coverage sweep found in short: counts, seconds, shares, each against Torch-Pruning's."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.coverage_models import Row
from benchmarks.coverage_records import ONNX_CLOSE, Ours, Peer, Verdict, judge_ours, judge_peer
from benchmarks.coverage_store import Stored

SLOW_S = 10.0
"""At most this long may finding groups take for a network below `LARGE`."""

LARGE = 100_000_000

NEARLY = 0.001
"""Shares of parameters closer than this count as the same."""


@dataclass(frozen=True)
class Line:
    """A row with what is stored of it."""

    row: Row
    ours: Stored[Ours] | None
    peer: Stored[Peer] | None

    @property
    def our_verdict(self) -> Verdict | None:
        """Of our cell, or None where it was not run."""
        return judge_ours(self.ours.cell) if self.ours else None

    @property
    def peer_verdict(self) -> Verdict | None:
        """Of Torch-Pruning's cell, or None where it was not run."""
        return judge_peer(self.peer.cell) if self.peer else None

    @property
    def both_s(self) -> tuple[float, float] | None:
        """Seconds of both, where both gave a pruned network of the same program that runs."""
        if self.ours is None or self.peer is None or self.peer.cell.part != "whole":
            return None
        ours_s, peer_s = self.ours.cell.find_s, self.peer.cell.seconds
        if ours_s is None or peer_s is None or self.peer.cell.failure or not self.peer.cell.groups:
            return None
        return ours_s, peer_s


def summarize(lines: Sequence[Line]) -> str:
    """Counts and goals."""
    run = [line for line in lines if line.ours]
    absent = [line for line in lines if not line.ours or not line.peer]
    bullets = [
        f"latprune: {_count_words([line.our_verdict for line in lines])}.",
        f"Torch-Pruning: {_count_words([line.peer_verdict for line in lines])}.",
        _onnx(run),
        _time(lines),
        _slowest(run),
        _shares(lines),
    ]
    if absent:
        names = ", ".join(line.row.name + (f" ({line.row.left_out})" if line.row.left_out else "") for line in absent)
        bullets.append(f"Not run, on one side or both: {names}.")
    return "\n".join(f"* {bullet}" for bullet in bullets)


def _count_words(verdicts: Iterable[Verdict | None]) -> str:
    counted = Counter(verdict.word for verdict in verdicts if verdict)
    order = ("exact", "approximate", "wrong", "fails", "timeout", "nothing pruned", "not compared")
    if not counted:
        return "no network was run"
    return f"of {counted.total()} networks " + ", ".join(f"{counted[word]} {word}" for word in order if counted[word])


def _onnx(run: Sequence[Line]) -> str:
    found = [(line.ours.cell.onnx_difference, line) for line in run if line.ours]
    equal = sum(difference is not None and difference <= ONNX_CLOSE for difference, _ in found)
    other = [f"{line.row.name} ({d:.1g})" for d, line in found if d is not None and not d <= ONNX_CLOSE]
    none = [line.row.name for d, line in found if d is None]
    text = f"ONNX Runtime's output is PyTorch's on {equal} of {len(found)} shrunk networks"
    text += f"; it differs on {', '.join(other)}" if other else ""
    return text + (f"; there is none of {', '.join(none)}" if none else "") + "."


def _time(lines: Sequence[Line]) -> str:
    both = [(line.row.name, *line.both_s) for line in lines if line.both_s]
    if not both:
        return "There is no network that both finish."
    ours_s, peer_s = sum(ours for _, ours, _ in both), sum(peer for _, _, peer in both)
    faster = sum(ours <= peer for _, ours, peer in both)
    text = f"On the {len(both)} networks that both finish (pruned, and it runs): latprune {ours_s:.1f} s in all,"
    return text + f" Torch-Pruning {peer_s:.1f} s ({ours_s / peer_s:.2f} times); latprune is faster on {faster}."


def _slowest(run: Sequence[Line]) -> str:
    timed = [
        (line.ours.cell.find_s, line.row.name)
        for line in run
        if line.ours and line.ours.cell.find_s is not None and (line.ours.cell.parameters or 0) < LARGE
    ]
    if not timed:
        return "No network below 100 million parameters was timed."
    seconds, name = max(timed)
    slow = sorted(((s, n) for s, n in timed if s > SLOW_S), reverse=True)
    text = f"Slowest below 100 million parameters: {name}, {seconds:.1f} s; "
    return text + (
        f"over {SLOW_S:g} s: " + ", ".join(f"{n} {s:.1f} s" for s, n in slow) + "."
        if slow
        else f"none over {SLOW_S:g} s."
    )


def _shares(lines: Sequence[Line]) -> str:
    """Where less goes than with Torch-Pruning."""
    less, compared = [], 0
    for line in lines:
        if line.ours is None or line.peer is None or not (line.peer_verdict and line.peer_verdict.good):
            continue
        ours, peer = line.ours.cell.inner_share, line.peer.cell.inner_share
        if peer is None:
            continue
        compared += 1
        if ours is None or ours < peer - NEARLY:
            less.append(f"{line.row.name} ({percent(ours)} and {peer:.1%})")
    text = f"Of the inner parameters as much goes as with Torch-Pruning, or more, on {compared - len(less)} of the"
    text += f" {compared} networks on which that is exact or approximate"
    return text + (f"; less on {', '.join(less)}" if less else "") + "."


def percent(share: float | None) -> str:
    """A share as it is shown; nothing for None."""
    return "" if share is None else f"{share:.1%}"
