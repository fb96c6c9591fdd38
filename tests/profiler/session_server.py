"""A process that analyses a small network once and forks a profiling session at each request, for tests to end.

A request is a line of JSON: the table, a FIFO for the session's events, and limits. A session says its own number, its
worker's, each network that is finished, and how it ended; the FIFO's end is the session's.
"""

import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import IO, Any
from unittest import mock

import torch
from torch import nn

from lut import LatpruneError
from profiler import worker_child
from profiler.network import Network, analyze
from profiler.profile import STAGE, ProfileConfig, profile
from profiler.progress import Event
from profiler.variants import Variants, prepare


def small_network() -> Network:
    """A network of few and small units, the same in every process."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return analyze(nn.Sequential(*layers, nn.Linear(16, 4)).eval(), (torch.zeros(1, 3, 8, 8),))


def run(request: dict[str, Any], network: Network, variants: Variants, events: IO[str]) -> None:
    """One session, in a process of its own."""

    def say(**words: object) -> None:
        events.write(json.dumps(words) + "\n")
        events.flush()

    class Child(worker_child.Child):
        def __init__(self) -> None:
            super().__init__()
            say(worker=self.process.pid)

    def show(event: Event) -> None:
        if event.stage == STAGE:
            say(finished=event.done)
            if request.get("file_bytes"):
                resource.setrlimit(resource.RLIMIT_FSIZE, (request["file_bytes"], resource.RLIM_INFINITY))

    say(session=os.getpid())
    count = request["networks"]
    config = ProfileConfig(networks_min=count, networks_max=count, target_error=0.0, runs=4)
    with (
        mock.patch("profiler.worker_client.Child", Child),
        mock.patch.object(sys.modules["profiler.profile"], "prepare", return_value=variants),
    ):
        try:
            report = profile(network, Path(request["table"]), config=config, progress=show)
            say(measured=report.measured, reused=report.reused, failed=report.failed)
        except LatpruneError as error:
            say(error=str(error))


def main() -> None:
    """Answer requests until the input ends."""
    network = small_network()
    variants = prepare(network)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    sys.stdout.write(json.dumps({"units": len(network.units), "network": network.hash}) + "\n")
    sys.stdout.flush()
    for line in sys.stdin:
        request = json.loads(line)
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: PTH123, SIM115 - the requests are the parent's
            with Path(request["events"]).open("w", encoding="utf-8") as events:
                run(request, network, variants, events)
            os._exit(0)


if __name__ == "__main__":
    main()
