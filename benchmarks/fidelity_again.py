"""Predict stored held-out vectors again, with the present code and the tables as they were measured.

Nothing is measured: networks are compiled to know their kernels, and what was measured of them is not looked at. So a
better model is judged on all cells without an hour and a half of measuring.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.fidelity_networks import make_network
from benchmarks.fidelity_store import Cell, hash_sources, path_of, read_cell, table_of, write_cell
from lut import Predictor, open_table
from profiler.forms import compile_forms
from profiler.inplace import Owners
from profiler.network import analyze
from profiler.variants import prepare
from profiler.worker_client import WorkerClient


def predict_again(
    names: Sequence[str], runtimes: Sequence[str], store: Path, say: Callable[[str], None]
) -> list[tuple[str, str]]:
    """Replace the predictions of all stored cells that older sources have made; returns which."""
    done = []
    for name in names:
        for runtime in runtimes:
            found = read_cell(path_of(store, name, runtime), Cell)
            if found is None:
                continue
            setting, cell = found
            if cell.failure is not None or hash_sources() in (setting.sources, cell.predicted_with):
                continue
            _replace(cell, name, runtime, store)
            write_cell(path_of(store, name, runtime), replace(cell, predicted_with=hash_sources()), setting)
            say(f"{name} on {runtime} is predicted again")
            done.append((name, runtime))
    return done


def _replace(cell: Cell, name: str, runtime: str, store: Path) -> None:
    model, picture = make_network(name)
    network = analyze(model, (picture,))
    variants = prepare(network)
    owners = Owners.of(variants)
    table = open_table(table_of(store, name, runtime), backend=runtime)
    predictor = Predictor(network.units, table, network=network.hash)
    with WorkerClient(runtime) as client:
        for vector in cell.vectors:
            found = predictor.predict(vector.widths, compile_forms(variants, vector.widths, client, owners))
            vector.ms, vector.low_ms, vector.high_ms = found.total.ms, found.total.low_ms, found.total.high_ms
            vector.guessed_ms, vector.guessed = predictor.latency_ms(vector.widths), found.guessed
