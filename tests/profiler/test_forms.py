"""Compiling tells what measuring finds."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from profiler.backends import BACKENDS
from profiler.export import write_onnx
from profiler.forms import compile_forms, runs_here
from profiler.inplace import Owners, to_rows
from profiler.network import Network, analyze
from profiler.profile import ProfileConfig
from profiler.variants import Variants, prepare
from profiler.worker_client import WorkerClient
from tests.pruner.example_task import SmallNet, example_inputs

TIMING = [backend.name for backend in BACKENDS if "times nodes" in backend.status().abilities]


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    return analyze(SmallNet().eval(), example_inputs())


@pytest.fixture(scope="module")
def variants(network: Network) -> Variants:
    return prepare(network)


@pytest.mark.parametrize("backend", TIMING)
@pytest.mark.parametrize("off", [0, 1, 3, 4])
def test_the_forms_compiled_are_those_that_run(
    backend: str, off: int, network: Network, variants: Variants, tmp_path: Path
) -> None:
    widths = {name: max(1, size - off) for name, size in network.widths.items()}
    path = tmp_path / "variant.onnx"
    write_onnx(variants.at(variants.widths_removal(widths)), path)
    config = ProfileConfig().measure
    with WorkerClient(backend) as client:
        compiled = compile_forms(variants, widths, client)
        reply = client.nodes(path, config, runs=4)
        assert runs_here(client.fingerprint())
        assert not runs_here(replace(client.fingerprint(), runtime_version="0.1"))
    whole, rows = to_rows(network, Owners.of(variants), widths, reply, config, 1.0)
    assert compiled == dict(whole.forms)
    assert [row.form for row in rows] == [compiled[unit.name] for unit in network.units]


def test_a_runtime_that_cannot_tell_leaves_the_forms_to_be_guessed(
    network: Network, variants: Variants, caplog: pytest.LogCaptureFixture
) -> None:
    with WorkerClient("nowhere") as client, caplog.at_level(logging.WARNING):
        assert compile_forms(variants, network.widths, client) == {}
    assert "guessed" in caplog.text
