"""What a compiler says of each unit of a network alone, at full width: where weights and scratch memory come from."""

from dataclasses import replace

import numpy as np
import onnx
from onnx import helper

from lut import TableFile
from lut.errors import LatpruneError
from lut.memory import MemoryBound
from lut.records import MeasureConfig, Measurement, UnitSpec
from profiler.ahead import Compiler
from profiler.backends.inputs import random_inputs
from profiler.backends.interface import Array
from profiler.inplace import Owners
from profiler.network import Network
from profiler.pieces import Pieces
from profiler.progress import Event, Progress
from profiler.variants import Variants

STAGE = "compile units by themselves"


def compile_units(
    network: Network, variants: Variants, store: TableFile, compiler: Compiler, progress: Progress
) -> int:
    """Compile the units of the unpruned network that the table does not hold yet, and tell how many rows were added.

    A unit alone pays for borders that it does not have inside the network: units' figures do not add up to the whole's.
    One that cannot be compiled alone is a row with the reason.

    Raises:
        TableError: the table cannot be written.
    """
    known = {row.spec for row in store.measurements(compiler.fingerprint)}
    wanted: dict[UnitSpec, int] = {}
    for number, unit in enumerate(network.units):
        spec = unit.spec(network.widths)
        spec = UnitSpec(replace(spec.family, precision=compiler.target.precision), spec.channels)
        if spec not in known:
            wanted.setdefault(spec, number)
    if not wanted:
        return 0
    pieces = Pieces(variants.at({}), Owners.of(variants))
    for done, (spec, number) in enumerate(wanted.items(), 1):
        store.add_measurements(compiler.fingerprint, [_row(spec, pieces, number, compiler)])
        progress(Event(STAGE, done, len(wanted)))
    return len(wanted)


def _row(spec: UnitSpec, pieces: Pieces, number: int, compiler: Compiler) -> Measurement:
    found: MemoryBound | None = None
    failure: str | None = None
    try:
        piece = pieces.cut_out(number)
        if piece is None:
            failure = "it has no nodes of its own"
        else:
            found = compiler.bound(piece, _inputs(piece))
    except KeyError as error:
        failure = f"the shape of {error} is not known"
    except LatpruneError as error:
        failure = str(error)
    return Measurement(
        spec,
        MeasureConfig(),
        (),
        None,
        None,
        place="isolated",
        weights_bytes=found.weights_bytes if found else None,
        activation_bytes=found.activation_bytes if found else None,
        workspace_bytes=found.workspace_bytes if found else None,
        failure=failure,
    )


def _inputs(piece: onnx.ModelProto) -> list[Array]:
    """Random ones: int8 needs some, and they do not change the memory."""
    wanted = []
    for value in piece.graph.input:
        kind = value.type.tensor_type
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(kind.elem_type)).type
        wanted.append((value.name, dtype, tuple(dim.dim_value for dim in kind.shape.dim)))
    return list(random_inputs(wanted, seed=0).values())
