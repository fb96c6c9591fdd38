"""Open a table's file: choose the one fingerprint and precision that is meant, or say which there are."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lut.errors import TableError
from lut.records import DeviceFingerprint, Measurement, NetworkMeasurement
from lut.store import TableFile
from lut.table import LatencyTable


@dataclass(frozen=True)
class _Content:
    """What one fingerprint has in one precision."""

    fingerprint: DeviceFingerprint
    precision: str | None
    measurements: Sequence[Measurement]
    networks: Sequence[NetworkMeasurement]

    def __str__(self) -> str:
        return f"{self.fingerprint}, {self.precision}" if self.precision else str(self.fingerprint)


def open_table(
    path: str | os.PathLike[str],
    *,
    backend: str | None = None,
    device: str | None = None,
    compute_capability: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    fingerprint: str | None = None,
    here: DeviceFingerprint | None = None,
) -> LatencyTable:
    """Read the rows of the one fingerprint (and precision) in a file that fits.

    Args:
        path: of the table.
        backend: the runtime's name.
        device: any part of the device's name, in any case.
        compute_capability: such as "8.6".
        precision: such as "fp32".
        threads: of a CPU runtime; rows that were made ahead of time do not depend on it.
        fingerprint: the beginning of its key (`latprune table show` tells them); it tells versions and settings apart.
        here: this machine's, which is taken where several fit.

    Raises:
        TableError: the file cannot be read; none of its fingerprints fits, or several do.
    """
    with TableFile(path) as file:
        contents = [
            content
            for held in file.fingerprints()
            for content in _by_precision(held, file.measurements(held), file.networks(held))
        ]
    fitting = [
        content
        for content in contents
        if backend in (None, content.fingerprint.runtime)
        and (device is None or device.lower() in content.fingerprint.device.lower())
        and compute_capability in (None, content.fingerprint.compute_capability)
        and (content.fingerprint.ahead_of_time or threads in (None, content.fingerprint.threads))
        and precision in (None, content.precision)
        and (fingerprint is None or content.fingerprint.key.startswith(fingerprint))
    ]
    if device is not None and len(fitting) > 1:
        fitting = [content for content in fitting if content.fingerprint.device == device] or fitting
    if len(fitting) > 1:
        fitting = [content for content in fitting if content.fingerprint == here] or fitting
    if len(fitting) != 1:
        raise _choice_error(Path(path), contents, fitting)
    chosen = fitting[0]
    return LatencyTable(
        chosen.fingerprint,
        chosen.measurements,
        networks=chosen.networks,
        precision=chosen.precision,
        name=str(path),
        path=Path(path),
    )


def _by_precision(
    fingerprint: DeviceFingerprint, measurements: list[Measurement], networks: list[NetworkMeasurement]
) -> list[_Content]:
    """Split by the networks' precision, or where none is told by the families'.

    Unit rows go with every part: a family's precision is in its key, and an int8 network has units in fp32.
    """
    told = {network.precision for network in networks if network.precision is not None}
    names = sorted(told or {row.spec.family.precision for row in measurements})
    if not names:
        return [_Content(fingerprint, None, measurements, networks)]
    return [
        _Content(fingerprint, name, measurements, [row for row in networks if row.precision in (None, name)])
        for name in names
    ]


def _choice_error(path: Path, contents: list[_Content], fitting: list[_Content]) -> TableError:
    if not contents:
        return TableError(f"{path} holds no measurement yet.\nMake some: latprune profile TASK --table {path}")
    flags = "--backend, --device, --compute-capability, --precision, --threads or --fingerprint"
    if not fitting:
        return TableError(
            f"no fingerprint in {path} fits; it holds: {'; '.join(map(str, contents))}.\n"
            f"Choose one of them with {flags}, or measure: latprune profile TASK --table {path}"
        )
    details = _differences(fitting)
    return TableError(f"{len(fitting)} fingerprints in {path} fit: {'; '.join(details)}.\nChoose with {flags}")


def _differences(fitting: list[_Content]) -> list[str]:
    """Each in words; where two read alike, with the fields in which it differs from the first."""
    words = list(map(str, fitting))
    if len(set(words)) == len(words):
        return words
    first = fitting[0].fingerprint
    found = []
    for content, text in zip(fitting, words, strict=True):
        fields = content.fingerprint.differences(first)
        key = f" [{content.fingerprint.key}]"
        found.append(text + key + "".join(f", {name} {mine} (not {other})" for name, mine, other in fields))
    return found
