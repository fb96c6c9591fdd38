"""From stored cells to figures: accuracy against measured latency, and the speed-up at equal accuracy.

A method's curve on one runtime and seed are its networks' points, and the unpruned network with as much fine-tuning as
they had, at latency 1. What a curve takes to reach an accuracy:

    fastest(a) = least latency at which the best accuracy so far, linear between points, is a
    speed-up   = fastest of the peer / fastest of ours
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from safetensors.numpy import load_file

from benchmarks.settings import Setting
from benchmarks.versus_methods import METHODS, OURS
from benchmarks.versus_store import Base, Key, Places, Plan, Table, Timed, Tuned, read_record
from pruner.plan import read_ranges

BUDGETS = (75, 50, 30)


@dataclass(frozen=True)
class Point:
    """A finished cell.

    Attributes:
        key: which.
        ratio: latency over the unpruned network's, in a fresh process.
        accuracy, before: after fine-tuning and before it.
        plan: what is kept, and what the search measured.
        on: the same network's ratio on each runtime that measured it.
        lost: share of all Fisher importance that is gone; None where there are no scores.
    """

    key: Key
    ratio: float
    accuracy: float
    before: float | None
    plan: Plan
    on: Mapping[str, float]
    lost: float | None = None


@dataclass
class Results:
    """All that is stored.

    Attributes:
        points: finished cells.
        bases: unpruned networks, by network and seed.
        tables: by network and runtime.
        failures: what failed, in words.
        settings: of all records.
    """

    points: dict[Key, Point] = field(default_factory=dict)
    bases: dict[tuple[str, int], Base] = field(default_factory=dict)
    tables: dict[tuple[str, str], Table] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    settings: list[Setting] = field(default_factory=list)

    def seeds(self, network: str, runtime: str, method: str) -> list[int]:
        """Seeds of which a method has a point."""
        return sorted({k.seed for k in self.points if (k.network, k.runtime, k.method) == (network, runtime, method)})

    def budgets(self) -> list[int]:
        """The usual budgets and all others of which there is a point, widest first."""
        return sorted({*BUDGETS, *(key.budget for key in self.points)}, reverse=True)

    def at(self, network: str, runtime: str, method: str, budget: int) -> list[Point]:
        """A method's points at a budget, by seed."""
        found = [
            self.points.get(Key(network, runtime, method, budget, s)) for s in self.seeds(network, runtime, method)
        ]
        return [point for point in found if point is not None]

    def pairs(self) -> list[tuple[str, str]]:
        """Networks and runtimes for which something was pruned."""
        return list(dict.fromkeys((key.network, key.runtime) for key in self.points))


def read_results(names: Sequence[str], store: Path, runtimes: Sequence[str]) -> Results:
    """Everything that is stored of these networks."""
    results, places = Results(), Places(store)
    for name in names:
        for path in sorted((store / name).glob("unpruned.s*.json")):
            stored = read_record(path, Base)
            if stored and _took(results, stored, f"{name}, unpruned, {path.stem.rpartition('.')[2]}"):
                results.bases[name, int(path.stem.rpartition(".s")[2])] = stored[1]
        for runtime in runtimes:
            found = read_record(places.table(name, runtime), Table)
            if found and _took(results, found, f"{name}, table of {runtime}"):
                results.tables[name, runtime] = found[1]
            for key in _keys(store, name, runtime):
                _read_cell(results, places, key, runtimes)
    return results


def _keys(store: Path, name: str, runtime: str) -> list[Key]:
    found = []
    for path in (store / name / runtime).glob("*.json"):
        method, budget, seed, *_ = path.name.split(".")
        found.append(Key(name, runtime, method, int(budget[1:]), int(seed[1:])))
    order = list(METHODS)
    return sorted(set(found), key=lambda key: (order.index(key.method), -key.budget, key.seed))


def _took(results: Results, stored: tuple[Setting, Base | Table | Plan | Tuned | Timed], where: str) -> bool:
    """Note the setting, and a failure; whether it is none."""
    setting, record = stored
    results.settings.append(setting)
    if record.failure is not None:
        results.failures.append(f"{where}: {record.failure}")
    return record.failure is None


def _read_cell(results: Results, places: Places, key: Key, runtimes: Sequence[str]) -> None:
    own = Key(key.network, key.runtime, METHODS[key.method].like or key.method, key.budget, key.seed)
    plan = read_record(places.cell(own, "plan"), Plan)
    if plan and own == key:
        _took(results, plan, f"{key}, plan")
    tuned = read_record(places.cell(key, "tuned"), Tuned)
    if tuned:
        _took(results, tuned, f"{key}, training")
    on = {}
    for runtime in runtimes:
        timed = read_record(places.cell(key, f"timed.{runtime}"), Timed)
        if timed and _took(results, timed, f"{key}, measured on {runtime}") and timed[1].ratio is not None:
            on[runtime] = timed[1].ratio
    if plan and tuned and tuned[1].accuracy is not None and key.runtime in on:
        gone = importance_lost(places.base(key.network, key.seed).with_suffix(".scores.safetensors"), plan[1])
        results.points[key] = Point(key, on[key.runtime], tuned[1].accuracy, tuned[1].before, plan[1], on, gone)


def importance_lost(path: Path, plan: Plan) -> float | None:
    """The share of all Fisher importance that a plan gives up, by the scores that all methods share."""
    if not path.exists():
        return None
    scores = load_file(path)
    kept = sum(float(scores[group][list(read_ranges(choices))].sum()) for group, choices in plan.kept.items())
    frozen = sum(float(score.sum()) for group, score in scores.items() if group not in plan.kept)
    return 1 - (kept + frozen) / sum(float(score.sum()) for score in scores.values())


Curve = list[tuple[float, float]]
"""Ratio and accuracy, by ascending ratio."""


def curve(results: Results, network: str, runtime: str, method: str, seed: int) -> Curve:
    """A method's networks of one seed, and the unpruned one."""
    found = [
        (p.ratio, p.accuracy)
        for k, p in results.points.items()
        if (k.network, k.runtime, k.method, k.seed) == (network, runtime, method, seed)
    ]
    base = results.bases.get((network, seed))
    if base is not None and base.tuned is not None:
        found.append((1.0, base.tuned))
    return sorted(found)


def fastest(points: Curve, accuracy: float) -> float | None:
    """The least ratio at which a curve reaches an accuracy; None above its best point and below its fastest one."""
    best = -math.inf
    before: tuple[float, float] | None = None
    for ratio, reached in points:
        if reached >= accuracy:
            if before is None:
                return ratio if reached == accuracy else None
            share = (accuracy - before[1]) / (reached - before[1])
            return before[0] + share * (ratio - before[0])
        if reached > best:
            best, before = reached, (ratio, reached)
    return None


def speedup_at(ours: Curve, peer: Curve, ratio: float, accuracy: float) -> float:
    """How many times longer a peer takes to be as accurate as one of our networks.

    Of either method what is fastest at that accuracy counts: where a narrower network of ours is more accurate, by
    chance, than the one that is asked about, that one is what a user would take. Infinite where the peer never is.
    Where even its fastest network is more accurate, both are compared at the accuracy of that one instead; 0 where ours
    never gets there.
    """
    found = fastest(peer, accuracy)
    if found is not None:
        mine = ours[0][0] if ours[0][1] > accuracy else fastest(ours, accuracy)
        return found / min(ratio, mine or ratio)
    if max((reached for _, reached in peer), default=-math.inf) < accuracy:
        return math.inf
    least, reached = peer[0]
    back = fastest(ours, reached)
    if back is not None:
        return least / back
    return 0.0 if max(own for _, own in ours) < reached else least / ours[0][0]


@dataclass(frozen=True)
class Speedup:
    """Of ours over a peer at equal accuracy.

    Attributes:
        values: at the accuracies of all measured networks of both that lie on both curves.
        outside: at how many of them one of the curves does not reach.
    """

    values: tuple[float, ...]
    outside: int

    @property
    def median(self) -> float | None:
        """Of the values."""
        return statistics.median(self.values) if self.values else None


def speedup(results: Results, network: str, runtime: str, peer: str) -> Speedup:
    """Of ours over a peer, at all accuracies that were measured, seed by seed."""
    values, outside = [], 0
    for seed in sorted({*results.seeds(network, runtime, OURS)} & {*results.seeds(network, runtime, peer)}):
        ours, theirs = (curve(results, network, runtime, method, seed) for method in (OURS, peer))
        for ratio, accuracy in [*ours, *theirs]:
            if ratio == 1.0:
                continue
            pair = (fastest(ours, accuracy), fastest(theirs, accuracy))
            if pair[0] is None or pair[1] is None:
                outside += 1
            else:
                values.append(pair[1] / pair[0])
    return Speedup(tuple(values), outside)


@dataclass(frozen=True)
class Verdict:
    """Ours beside a peer at one budget.

    Attributes:
        network, runtime, peer, budget: where.
        speedups: at our networks' accuracies, by seed (see `speedup_at`).
        gains: our accuracy less the peer's at the same budget, by seed.
        lost: means of the importance that ours and the peer's gave up at that budget; None where it is not known.
    """

    network: str
    runtime: str
    peer: str
    budget: int
    speedups: tuple[float, ...]
    gains: tuple[float, ...]
    lost: tuple[float | None, float | None] = (None, None)

    @property
    def word(self) -> str:
        """A win where ours is faster with every seed, a loss where it is slower with every seed, else even."""
        return "win" if min(self.speedups) > 1 else "loss" if max(self.speedups) < 1 else "even"


def verdicts(results: Results) -> list[Verdict]:
    """Ours beside each peer, at every network, runtime and budget that both have."""
    found = []
    for network, runtime in results.pairs():
        for peer in METHODS:
            if peer == OURS:
                continue
            for budget in results.budgets():
                own = {point.key.seed: point for point in results.at(network, runtime, OURS, budget)}
                other = {point.key.seed: point for point in results.at(network, runtime, peer, budget)}
                speeds = [
                    speedup_at(
                        curve(results, network, runtime, OURS, seed),
                        curve(results, network, runtime, peer, seed),
                        own[seed].ratio,
                        own[seed].accuracy,
                    )
                    for seed in sorted(own.keys() & {*results.seeds(network, runtime, peer)})
                ]
                gains = tuple(own[seed].accuracy - other[seed].accuracy for seed in sorted(own.keys() & other.keys()))
                lost = (_mean_lost(own.values()), _mean_lost(other.values()))
                if speeds:
                    found.append(Verdict(network, runtime, peer, budget, tuple(speeds), gains, lost))
    return found


def _mean_lost(points: Iterable[Point]) -> float | None:
    known = [point.lost for point in points if point.lost is not None]
    return statistics.fmean(known) if known else None


def spread(values: Iterable[float]) -> tuple[float, float] | None:
    """Mean, and half of the range; None of nothing."""
    known = list(values)
    return (statistics.fmean(known), (max(known) - min(known)) / 2) if known else None
