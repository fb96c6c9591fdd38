"""Join tables: rows meet only under equal fingerprints, identical rows are taken once, conflicting ones are refused.

A row counts as often as in the file that has it most often, so that merging a table with its own copy changes nothing.
"""

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from lut.errors import TableError
from lut.recheck import Comparison, Pairs, compare, pair_networks, pair_up
from lut.records import DeviceFingerprint, UnitSpec
from lut.store import TableFile, check_header

Row = TypeVar("Row", bound=Hashable)

SHOWN = 3
"""Conflicting specs that a message names."""


@dataclass(frozen=True)
class Conflict:
    """Times of one fingerprint in a file that those of the files before it contradict.

    Attributes:
        fingerprint: that both call their own.
        path: of the file whose rows do not fit.
        what: "units" or "whole networks".
        comparison: of what the files before hold (old) and the file's own rows (new).
        examples: the farthest apart: what was timed, before, here (in ms).
    """

    fingerprint: DeviceFingerprint
    path: Path
    what: str
    comparison: Comparison
    examples: tuple[tuple[str, float, float], ...]

    def __str__(self) -> str:
        found = self.comparison
        specs = f"{found.count} {self.what} that both measured"
        if found.off:
            factor = f"{100 * abs(found.ratio - 1):.0f} % {'slower' if found.ratio > 1 else 'faster'}"
            return f"{self.path} is {factor} in {specs} on {self.fingerprint} ({self.fingerprint.key})"
        return (
            f"{self.path} has other times than noise explains in {len(found.beyond)} of {specs} on {self.fingerprint} "
            f"({self.fingerprint.key})"
        )


@dataclass(frozen=True)
class Merged:
    """What one file gave.

    Attributes:
        path: of the file.
        fingerprints: keys of those it has rows of, as far as they were asked for.
        rows, networks: added.
        identical: rows (of units and networks) that were there already.
    """

    path: Path
    fingerprints: tuple[str, ...]
    rows: int
    networks: int
    identical: int


@dataclass(frozen=True)
class MergeReport:
    """What `merge` did.

    Attributes:
        out: the file that holds everything now.
        extended: whether it was one of the files, and got the others' rows.
        files: one a file that was read, in order.
        fingerprints: that stand in `out`, side by side.
        conflicts: that were allowed.
    """

    out: Path
    extended: bool
    files: tuple[Merged, ...]
    fingerprints: tuple[DeviceFingerprint, ...]
    conflicts: tuple[Conflict, ...]


class ConflictError(TableError):
    """Rows of one fingerprint contradict each other; `conflicts` holds what was found."""

    def __init__(self, conflicts: Sequence[Conflict]) -> None:
        more = f"; and {len(conflicts) - 1} conflicts more" if len(conflicts) > 1 else ""
        farthest = "; ".join(f"{what}: {old:.4g} and {new:.4g} ms" for what, old, new in conflicts[0].examples)
        super().__init__(
            f"not merged: {conflicts[0]} (farthest apart: {farthest}){more}.\n"
            "If these are two devices, keep two files; else measure the wrong one anew, or take both: --allow-conflicts"
        )
        self.conflicts = tuple(conflicts)


def merge(
    paths: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    only: Sequence[str] = (),
    allow_conflicts: bool = False,
    progress: Callable[[int, Path], None] = lambda _done, _path: None,
) -> MergeReport:
    """Write one table with the rows of all of them; it is whole in the end, or as if nothing had been done.

    A new file appears in one piece. Where `out` is one of the files, it gets the others' rows in one transaction, so
    that others may go on writing to it.

    Args:
        paths: of tables; they are left as they are.
        out: a file that is not there yet, or one of the tables.
        only: keys of fingerprints (or how they begin) to be taken; empty for all.
        allow_conflicts: join rows that contradict each other.
        progress: told how many files are done, and the next.

    Raises:
        ConflictError: rows of one fingerprint contradict each other.
        TableError: a file cannot be read or written; `out` is there already and none of the tables.
    """
    target = Path(out)
    files = list(dict.fromkeys(Path(path).resolve() for path in paths))
    names = {Path(path).resolve(): Path(path) for path in reversed(paths)}
    extended = target.exists() and target.resolve() in files
    if target.exists() and not extended:
        check_header(target)
        raise TableError(
            f"{target} is there already, and is none of the tables to be merged.\n"
            f"Name another file, or extend it: name {target} among the tables as well"
        )
    with ExitStack() as stack:
        sources = {path: stack.enter_context(TableFile(names[path])) for path in files}
        _check_keys(only, sources.values())
        store = sources.pop(target.resolve()) if extended else stack.enter_context(_new(target, stack))
        draft, store.path = store.path, target  # messages name the file that was asked for
        with store.transaction():
            report = _fill(store, sources, only, progress)
            if report.conflicts and not allow_conflicts:
                raise ConflictError(report.conflicts)
        if not extended:
            store.close()
            _put(draft, target)
    return MergeReport(target, extended, report.files, report.fingerprints, report.conflicts)


def new_rows(held: Iterable[Row], offered: Iterable[Row]) -> list[Row]:
    """Those offered rows that are not held, or are more often than they are held, in order."""
    left = Counter(held)
    found = []
    for row in offered:
        if left[row] > 0:
            left[row] -= 1
        else:
            found.append(row)
    return found


def _fill(
    store: TableFile, sources: dict[Path, TableFile], only: Sequence[str], progress: Callable[[int, Path], None]
) -> MergeReport:
    files, conflicts = [], []
    for done, source in enumerate(sources.values()):
        progress(done, source.path)
        rows = networks = identical = 0
        taken = [found for found in source.fingerprints() if _wanted(found, only)]
        for fingerprint in taken:
            # networks first: where a profiler is writing, none is taken without its units
            held_networks, offered_networks = store.networks(fingerprint), source.networks(fingerprint)
            held, offered = store.measurements(fingerprint), source.measurements(fingerprint)
            fresh, fresh_networks = new_rows(held, offered), new_rows(held_networks, offered_networks)
            for what, pairs in (
                ("units", pair_up(held, fresh)),
                ("whole networks", pair_networks(held_networks, fresh_networks)),
            ):
                found = compare(pairs)
                if found is not None and found.conflict:
                    conflicts.append(Conflict(fingerprint, source.path, what, found, _examples(pairs, found)))
            for network in fresh_networks:
                store.add_network(fingerprint, network)
            store.add_measurements(fingerprint, fresh)
            rows, networks = rows + len(fresh), networks + len(fresh_networks)
            identical += len(offered) + len(offered_networks) - len(fresh) - len(fresh_networks)
        files.append(Merged(source.path, tuple(found.key for found in taken), rows, networks, identical))
    return MergeReport(store.path, False, tuple(files), tuple(store.fingerprints()), tuple(conflicts))


def _wanted(fingerprint: DeviceFingerprint, only: Sequence[str]) -> bool:
    return not only or any(fingerprint.key.startswith(key) for key in only)


def _check_keys(only: Sequence[str], sources: Iterable[TableFile]) -> None:
    held = {found.key: found for source in sources for found in source.fingerprints()}
    for key in only:
        if not any(own.startswith(key) for own in held):
            raise TableError(
                f"no fingerprint's key begins with {key!r}; there are: "
                f"{'; '.join(f'{own} ({found})' for own, found in held.items()) or 'none'}.\nChoose among these"
            )


def _examples(pairs: Pairs, found: Comparison) -> tuple[tuple[str, float, float], ...]:
    chosen = found.beyond[:SHOWN] or range(min(SHOWN, found.count))
    return tuple((_name(pairs.keys[n]), float(pairs.old_ms[n]), float(pairs.new_ms[n])) for n in chosen)


def _name(key: Hashable) -> str:
    first = key[0] if isinstance(key, tuple) else key
    if isinstance(first, UnitSpec):
        return f"{first.family} at {' → '.join(map(str, first.channels))}"
    return f"network {first}"


def _new(target: Path, stack: ExitStack) -> TableFile:
    """An empty table in a folder of its own beside the target; the folder goes with the stack."""
    if not target.parent.is_dir():
        raise TableError(f"{target} cannot be made: no directory {target.parent}.\nMake it: mkdir -p {target.parent}")
    try:
        folder = tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent)
    except OSError as error:
        raise TableError(f"{target} cannot be made: {error.strerror}.\nName a place that can be written") from error
    draft = Path(stack.enter_context(folder)) / target.name
    try:
        return TableFile(draft, create=True)
    except TableError as error:
        raise TableError(str(error).replace(str(draft), str(target))) from error


def _put(draft: Path, target: Path) -> None:
    """Give the finished file its name, unless somebody took it meanwhile."""
    try:
        target.hardlink_to(draft)
    except FileExistsError as error:
        raise TableError(f"{target} was made by another program meanwhile.\nName another file") from error
    except OSError:
        draft.rename(target)  # a file system without hard links
