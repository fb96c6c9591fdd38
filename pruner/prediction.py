"""What a table says of a network as it is, or as a plan leaves it; with `check` beside what is measured of it."""

import tempfile
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from lut import DeviceFingerprint, LatencyTable, Prediction, TableError, predict
from lut.predict import Forms
from profiler.blocks import Block, without_blocks
from profiler.export import write_onnx
from profiler.forms import compile_forms, runs_here
from profiler.inplace import CutCheck
from profiler.leftovers import standing
from profiler.network import Network
from profiler.progress import Event, Progress
from profiler.variants import Variants, prepare
from profiler.worker_client import WorkerClient
from pruner.deploy import measure


def predicted(
    network: Network,
    widths: Mapping[str, int],
    rows: LatencyTable,
    progress: Progress,
    gone: Sequence[Block],
    stay: Collection[str],
    *,
    compiled: bool,
    check: bool,
) -> dict[str, Any]:
    """What the table says of the network, as plain JSON; arguments and errors are `predict_at`'s."""
    found, forms, measured = predict_at(
        network, widths, rows, progress, gone=gone, stay=stay, compiled=compiled, check=check
    )
    told = describe(without_blocks(network, gone) if gone else network, widths, found, forms)
    return told | {"fingerprint": rows.fingerprint.to_json()} | measured


def describe(
    network: Network, widths: Mapping[str, int], found: Prediction, forms: Forms | None = None
) -> dict[str, Any]:
    """What the command tells of a prediction, as plain JSON; `forms` where the network was compiled."""
    known = forms or {}
    by_name = {unit.name: unit for unit in network.units}
    units = [
        {
            "name": unit.unit,
            "family": str(unit.spec.family),
            "channels": unit.spec.channels,
            "ms": unit.estimate.ms,
            "low_ms": unit.estimate.low_ms,
            "high_ms": unit.estimate.high_ms,
            "basis": unit.estimate.basis,
            "kernels": known.get(unit.unit),
        }
        for unit in found.units
    ]
    missing = [
        {"name": name, "family": str(by_name[name].family), "channels": by_name[name].channels(widths)}
        for name in found.missing
    ]
    return {
        "predicted_ms": found.total.ms,
        "low_ms": found.total.low_ms,
        "high_ms": found.total.high_ms,
        "units": units,
        "missing": missing,
        "calibration": found.calibration,
        "guessed": found.guessed,
        "cut": str(CutCheck.of(known.values())) if known else None,
        "free": dict(Counter(network.cut.free.values())),
        "widths": dict(widths),
    }


def memory(network: Network, widths: Mapping[str, int], runtime: str, precision: str) -> dict[str, Any]:
    """The network's memory as a runtime lays it out in a precision, as plain JSON.

    Raises:
        BackendError: there is no such runtime.
    """
    found = network.liveness(runtime, precision).at(widths).to_json()
    return found | {"memory_of": runtime, "memory_precision": precision}


def predict_at(
    network: Network,
    widths: Mapping[str, int],
    rows: LatencyTable,
    progress: Progress,
    *,
    gone: Sequence[Block] = (),
    stay: Collection[str] = (),
    compiled: bool,
    check: bool,
) -> tuple[Prediction, Forms, dict[str, Any]]:
    """Predict the network at these widths, and with `check` measure it too.

    Args:
        network: the unpruned one.
        widths: channels kept.
        rows: the table.
        progress: told of each step.
        gone: blocks that are there no more.
        stay: names of groups that were kept whole, for which no module is run as a program.
        compiled: have the table's runtime compile the network, where it is here, to know its kernels.
        check: measure the whole network on the table's own device.

    Returns:
        The prediction, what the runtime makes of the units where it was compiled, what was measured, and what blocks
        that are gone left behind.

    Raises:
        TableError: it is to be measured, and this machine is not the table's device.
        BackendError: the runtime cannot measure it.
    """
    forms: Forms = {}
    measured: dict[str, Any] = {}
    compiled = compiled and runs_here(rows.fingerprint)
    if compiled or check:
        with WorkerClient(rows.fingerprint.runtime, threads=rows.fingerprint.threads or 1) as worker:
            if check:
                _same_device(rows, worker.fingerprint())
            progress(Event("export the network", 0, 1))
            variants = prepare(network, stay=stay)
            progress(Event("export the network", 1, 1))
            forms = compile_forms(variants, widths, worker, blocks=gone) if compiled else {}
        if check:
            measured = _measure_whole(variants, widths, gone, rows, progress)
    stood, before = standing(network, gone).priced(lambda unit: unit.family in rows)
    forms = stood.forms(forms)
    found = predict(
        network.units,
        widths,
        rows,
        forms=forms,
        gone=stood.gone,
        left=stood.left,
        network=network.hash,
        allow_missing=True,
    )
    if gone:
        priced = [unit.name for unit in stood.left if unit.family in rows]
        measured["left_by_blocks"] = {
            "priced": priced,
            "priced_as_before": list(before),
            "missing": [unit.name for unit in stood.left if unit.name not in priced],
        }
    return found, forms, measured


def _measure_whole(
    variants: Variants,
    widths: Mapping[str, int],
    gone: Sequence[Block],
    rows: LatencyTable,
    progress: Progress,
) -> dict[str, Any]:
    backend, threads = rows.fingerprint.runtime, rows.fingerprint.threads or 1
    with tempfile.TemporaryDirectory(prefix="latprune-") as folder:
        path = Path(folder, "network.onnx")
        write_onnx(variants.at(variants.widths_removal(widths), gone), path)
        found = measure(path, backend=backend, threads=threads, progress=progress)
    return {
        "measured_ms": found.measured_ms,
        "noise": found.noise,
        "samples": found.samples,
        "discarded": found.discarded,
    }


def _same_device(rows: LatencyTable, here: DeviceFingerprint) -> None:
    differences = rows.fingerprint.differences(here)
    if differences:
        told = "; ".join(f"{name} {mine} there, {other} here" for name, mine, other in differences)
        raise TableError(
            f"{rows.name} was measured on another device or runtime: {told}.\n"
            "Run --check there, or choose another fingerprint of the table"
        )
