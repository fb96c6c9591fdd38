"""Runs the stages of the versus sweep: what computes on all cores at once, what measures alone."""

import math
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.fidelity import last_words
from benchmarks.versus_methods import METHODS, OURS
from benchmarks.versus_networks import QUICK
from benchmarks.versus_search import CAREFULLY, ROUGHLY
from benchmarks.versus_store import (
    ROOT,
    Base,
    Key,
    Places,
    Plan,
    Record,
    RecordT,
    Table,
    Timed,
    Tuned,
    read_record,
    read_setting,
    write_record,
)
from profiler.pinning import keeping_off
from profiler.worker_client import WorkerClient

MODULE = "benchmarks.versus_cell"

SECONDS = {
    "resnet20": {"base": 620.0, "table": 60.0, "plan": 20.0, "tuned": 55.0, "timed": 4.0},
    "mobilenet_v2": {"base": 800.0, "table": 120.0, "plan": 30.0, "tuned": 90.0, "timed": 5.0},
    "densenet": {"base": 800.0, "table": 200.0, "plan": 40.0, "tuned": 90.0, "timed": 5.0},
    "efficientnet_lite0": {"base": 260.0, "table": 260.0, "plan": 120.0, "tuned": 110.0, "timed": 6.0},
    QUICK: {"base": 7.0, "table": 9.0, "plan": 8.0, "tuned": 7.0, "timed": 2.0},
}
"""What a stage of a network takes on one core, roughly, where no stored cell tells."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Job:
    """One child's work, or one measurement.

    Attributes:
        stage: "base", "table", "plan", "tuned" or "timed".
        keys: the cells; those of one plan job differ in their budgets only. Other jobs have one.
        on: for "timed", the runtime that measures.
    """

    stage: str
    keys: tuple[Key, ...]
    on: str = ""

    @property
    def key(self) -> Key:
        """The first cell."""
        return self.keys[0]

    def __str__(self) -> str:
        key = self.key
        if self.stage == "base":
            return f"{key.network}, seed {key.seed}: train the unpruned network"
        if self.stage == "table":
            return f"{key.network}: table of {key.runtime}"
        budgets = ", ".join(f"{each.budget} %" for each in self.keys)
        where = f", measured on {self.on}" if self.on and self.on != key.runtime else ""
        return f"{key.network} on {key.runtime}, {key.method}, {budgets}, seed {key.seed}: {self.stage}{where}"


@dataclass(frozen=True)
class Sweep:
    """How cells are made.

    Attributes:
        places: where they lie.
        runtimes: on which ours is measured, whichever it was planned for.
        jobs: how many trainings at once.
        timeout_s: most seconds of a child.
        say: told of each job in a line.
    """

    places: Places
    runtimes: Sequence[str]
    jobs: int
    timeout_s: float
    say: Say

    def run(self, keys: Sequence[Key]) -> None:
        """Make what is missing of these cells, network by network, seed by seed; failures are kept and passed over.

        Raises:
            KeyboardInterrupt: it was stopped; what is unfinished is left out.
        """
        for network in dict.fromkeys(key.network for key in keys):
            own = [key for key in keys if key.network == network]
            self.at_once(self.bases(own))
            self.one_by_one(self.tables(own))
            for seed in dict.fromkeys(key.seed for key in own):
                cells = [key for key in own if key.seed == seed]
                self.one_by_one(self.plans(cells))
                self.at_once(self.tunings(cells))
                self.one_by_one(self.timings(cells))

    def bases(self, keys: Iterable[Key]) -> list[Job]:
        """Unpruned networks that are missing."""
        wanted = dict.fromkeys((key.network, key.seed) for key in keys)
        jobs = [Job("base", (Key(network, "", "", 0, seed),)) for network, seed in wanted]
        return [job for job in jobs if self.missing(job, Base)]

    def tables(self, keys: Iterable[Key]) -> list[Job]:
        """Tables that are missing."""
        wanted = dict.fromkeys((key.network, key.runtime) for key in keys)
        jobs = [Job("table", (Key(network, runtime, "", 0, 0),)) for network, runtime in wanted]
        return [job for job in jobs if self.missing(job, Table)]

    def plans(self, keys: Iterable[Key]) -> list[Job]:
        """Plans that are missing, a job for all budgets of a method; none where the network or the table failed."""
        together: dict[tuple[str, str, str, int], list[Key]] = defaultdict(list)
        for key in keys:
            if METHODS[key.method].like is None and self.missing(Job("plan", (key,)), Plan) and self.ready(key):
                together[key.network, key.runtime, key.method, key.seed].append(key)
        return [Job("plan", tuple(own)) for own in together.values()]

    def tunings(self, keys: Iterable[Key]) -> list[Job]:
        """Networks that are planned and not trained on."""
        jobs = [Job("tuned", (key,)) for key in keys if self.done(Job("plan", (planned_as(key),)), Plan)]
        return [job for job in jobs if self.missing(job, Tuned)]

    def timings(self, keys: Iterable[Key]) -> list[Job]:
        """Networks that are exported and not measured: on their own runtime, ours on each."""
        jobs = []
        for key in keys:
            if self.done(Job("tuned", (key,)), Tuned):
                others = self.runtimes if key.method == OURS else ()
                jobs += [Job("timed", (key,), on) for on in dict.fromkeys([key.runtime, *others])]
        return [job for job in jobs if self.missing(job, Timed)]

    def path(self, job: Job) -> Path:
        """The file that a job of one cell leaves."""
        key = job.key
        if job.stage == "base":
            return self.places.base(key.network, key.seed)
        if job.stage == "table":
            return self.places.table(key.network, key.runtime)
        return self.places.cell(key, f"{job.stage}.{job.on}" if job.on else job.stage)

    def missing(self, job: Job, _kind: type[Record]) -> bool:
        """Whether there is no file, not even of a failure."""
        return not self.path(job).exists()

    def done(self, job: Job, kind: type[RecordT]) -> bool:
        """Whether there is a record that is no failure."""
        stored = read_record(self.path(job), kind)
        return stored is not None and stored[1].failure is None

    def ready(self, key: Key) -> bool:
        """Whether the unpruned network and the table are there."""
        return self.done(Job("base", (key,)), Base) and self.done(Job("table", (key,)), Table)

    def one_by_one(self, jobs: Sequence[Job]) -> None:
        """Do jobs that measure, with nothing else running."""
        for number, job in enumerate(jobs, 1):
            self.do(job, f"[{number}/{len(jobs)}]")

    def at_once(self, jobs: Sequence[Job]) -> None:
        """Do jobs that only compute, several at a time."""
        with ThreadPoolExecutor(max(1, self.jobs)) as pool:
            futures = [pool.submit(self.do, job, f"[{number}/{len(jobs)}]") for number, job in enumerate(jobs, 1)]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def do(self, job: Job, number: str) -> None:
        """Do a job and tell of it."""
        start = time.perf_counter()
        if job.stage == "timed":
            self.time(job)
        else:
            self.start_child(job)
        took_s = time.perf_counter() - start
        for key in job.keys:
            self.say(f"{number} {Job(job.stage, (key,), job.on)}: {self.line(Job(job.stage, (key,), job.on))}")
        self.say(f"      {took_s:.0f} s")

    def start_child(self, job: Job) -> None:
        """Do a stage in a process of its own, which leaves the files; its failure is kept where it left none.

        Raises:
            KeyboardInterrupt: the child was stopped from the keyboard.
        """
        key, setting = job.key, read_setting()
        command = [sys.executable, "-m", MODULE, job.stage, key.network, "--store", str(self.places.store.absolute())]
        command += ["--runtime", key.runtime, "--method", key.method, "--seed", str(key.seed)]
        command += ["--budgets", *(str(each.budget) for each in job.keys)]
        try:
            done = subprocess.run(
                command, cwd=ROOT, capture_output=True, text=True, errors="replace", timeout=self.timeout_s, check=False
            )
            if done.returncode == -signal.SIGINT:
                raise KeyboardInterrupt
            failure = last_words(done.returncode, done.stderr)
        except subprocess.TimeoutExpired:
            failure = f"timeout after {self.timeout_s:g} s"
        kinds: dict[str, type[Record]] = {"base": Base, "table": Table, "plan": Plan, "tuned": Tuned}
        for each in job.keys:
            path = self.path(Job(job.stage, (each,)))
            if not path.exists():
                write_record(path, kinds[job.stage](failure=failure), setting)

    def time(self, job: Job) -> None:
        """Measure an exported network by turns with the unpruned one, in a fresh process of a runtime."""
        key, start = job.key, time.perf_counter()
        config = ROUGHLY if key.network == QUICK else CAREFULLY
        reference = self.places.base(key.network, key.seed).with_suffix(".onnx")
        with WorkerClient(job.on) as client:
            client.fingerprint()
            with keeping_off(client.pid):
                reply = client.time(self.places.onnx(key), config, reference=reference)
        took_s = round(time.perf_counter() - start, 2)
        if reply.failure is not None or reply.ratio is None:
            timed = Timed(failure=reply.failure or "too few samples were undisturbed", seconds=took_s)
        else:
            timed = Timed(ratio=reply.ratio, noise=reply.ratio_noise, ms=reply.median_ms, seconds=took_s)
        write_record(self.path(job), timed, read_setting())

    def line(self, job: Job) -> str:
        """What came of a job, in a few words."""
        kinds: dict[str, type[Record]] = {"base": Base, "table": Table, "plan": Plan, "tuned": Tuned, "timed": Timed}
        stored = read_record(self.path(job), kinds[job.stage])
        return describe(stored[1]) if stored else "nothing was kept"


def planned_as(key: Key) -> Key:
    """The cell whose plan a cell takes."""
    return Key(key.network, key.runtime, METHODS[key.method].like or key.method, key.budget, key.seed)


def describe(record: Record) -> str:
    """A record in a few words."""
    if record.failure is not None:
        return f"failed: {record.failure}"
    match record:
        case Base():
            return f"accuracy {record.accuracy:.2%}, trained on {record.tuned:.2%}"
        case Table():
            return f"{record.networks} networks, unpruned {record.unpruned_ms or math.nan:.3g} ms"
        case Plan():
            trials = f", {len(record.trials)} trials" if record.trials else f", solver {record.solver}"
            return f"{record.ratio:.1%} of the unpruned latency{trials}"
        case Tuned():
            return f"accuracy {record.accuracy:.2%}"
    return f"{record.ratio:.1%} of the unpruned latency"
