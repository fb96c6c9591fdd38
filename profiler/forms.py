"""What the runtime makes of each unit at given widths: compiled there, run never.

A runtime lays out and fuses by the alignment of channel counts, the neighbours' among them, so that a unit becomes now
one kernel and now four. Compiling a variant tells which; the table prices each kernel.
"""

import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from lut.errors import BackendError
from lut.predict import Forms
from lut.records import DeviceFingerprint
from profiler.backends import get_backend
from profiler.blocks import Block
from profiler.export import write_onnx
from profiler.inplace import Owners, find_forms
from profiler.variants import Variants
from profiler.worker_client import WorkerClient

log = logging.getLogger(__name__)


def runs_here(table: DeviceFingerprint) -> bool:
    """Whether the runtime that a table was measured with is here, in the same version and on the same processor.

    One that tells nothing of single nodes makes no forms, and is not here for that.

    How many cores this process may use makes no difference to what is compiled.
    """
    try:
        backend = get_backend(table.runtime)
        if "times nodes" not in backend.status().abilities:
            return False
        here = backend.fingerprint(table.threads or 1)
    except BackendError:
        return False
    same = here.runtime_version == table.runtime_version
    return same and dict(here.settings).get("processor") == dict(table.settings).get("processor")


def compile_forms(
    variants: Variants,
    widths: Mapping[str, int],
    client: WorkerClient,
    owners: Owners | None = None,
    blocks: Sequence[Block] = (),
) -> Forms:
    """Compile the network at these widths, without blocks, and sort its kernels by unit.

    Returns:
        By unit the form; empty where the runtime cannot tell (it is then guessed by the table), which is logged.
    """
    with tempfile.TemporaryDirectory(prefix="latprune-") as folder:
        path = Path(folder, "variant.onnx")
        write_onnx(variants.at(variants.widths_removal(widths), blocks), path)
        reply = client.kernels(path)
    if reply.failure is not None:
        log.warning("what the runtime makes of the units is guessed: %s", reply.failure)
        return {}
    return find_forms(variants.network, owners or Owners.of(variants), reply.nodes)
