"""Try the found groups on a shrunk copy: what does not run there, or runs and is not the masked network, is frozen.

Before that, the network's code is made to follow: numbers in modules (`repair`), then modules as programs (`scribe`).
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from lut.records import ChannelGroup
from profiler.collecting import without_collecting
from profiler.groups import Structure, read_structure
from profiler.labels import Doubtful
from profiler.proof import Failure, Proof
from profiler.repair import with_attributes
from profiler.scribe import Scribe


def _culprits(fails: Failure, groups: Sequence[ChannelGroup], reason: str) -> dict[str, str]:
    """Halve until the groups that fail stand alone; those that fail only together are all named."""
    if len(groups) == 1:
        return {groups[0].name: reason}
    middle = len(groups) // 2
    found: dict[str, str] = {}
    for half in (groups[:middle], groups[middle:]):
        failure = fails(half)
        if failure:
            found.update(_culprits(fails, half, failure))
    return found or {group.name: reason for group in groups}


def _frozen(group: ChannelGroup, reason: str) -> ChannelGroup:
    return replace(group, size=0, frozen_because=reason, attributes=(), programs=())


def _alike(groups: Sequence[ChannelGroup]) -> list[list[ChannelGroup]]:
    """The groups by kind: those whose parameters have the same names but for the numbers in them."""
    kinds: dict[tuple[tuple[str, int], ...], list[ChannelGroup]] = defaultdict(list)
    for group in groups:
        kinds[tuple((re.sub(r"\d+", "#", m.parameter), m.dimension) for m in group.members)].append(group)
    return list(kinds.values())


def _options(kind: list[ChannelGroup], scribe: Scribe) -> Iterator[list[ChannelGroup]]:
    """Ways in which groups could be cut: as they are, without guessed numbers, without programs, with more of them."""
    bare = [replace(group, attributes=()) for group in kind]
    yield kind
    if any(group.attributes for group in kind):
        yield bare
    if any(group.programs for group in kind):
        yield [replace(group, programs=()) for group in kind]
        yield [replace(group, programs=()) for group in bare]
    followed = list(scribe.followed(bare))
    if any(group.programs != before.programs for group, before in zip(followed, bare, strict=True)):
        yield followed


def _judged(fails: Failure, kind: list[ChannelGroup], scribe: Scribe) -> list[ChannelGroup]:
    """Groups of one kind as they can stay, or frozen.

    Where the first and the last of a kind fail alone, the whole kind is frozen.
    """
    reasons = []
    for option in _options(kind, scribe):
        reason = fails(option)
        if reason is None:
            return option
        reasons.append(reason)
    alone = [fails([group]) for group in (kind[0], kind[-1])] if len(kind) > 1 else reasons[:1]
    if all(alone):
        return [_frozen(group, reasons[0] + scribe.why_not()) for group in kind]
    wrong = _culprits(fails, kind, reasons[0])
    return [_frozen(group, wrong[group.name]) if group.name in wrong else group for group in kind]


def _sift(fails: Failure, groups: tuple[ChannelGroup, ...], scribe: Scribe) -> tuple[ChannelGroup, ...]:
    """Change how groups are cut, and freeze groups, until what is left passes together."""
    while True:
        prunable = [group for group in groups if not group.frozen_because]
        failure = fails(prunable) if prunable else None
        if failure is None:
            return groups
        judged = [group for kind in _alike(prunable) for group in _judged(fails, kind, scribe)]
        before = {group.name: group for group in prunable}
        if all(_unchanged(group, before[group.name]) for group in judged):
            wrong = _culprits(fails, prunable, failure)
            judged = [_frozen(group, wrong[group.name]) for group in prunable if group.name in wrong]
        by_name = {group.name: group for group in judged}
        groups = tuple(by_name.get(group.name, group) for group in groups)


def _unchanged(group: ChannelGroup, before: ChannelGroup) -> bool:
    return group == before and group.programs == before.programs


def settle(model: nn.Module, inputs: Sequence[Any], structure: Structure, freeze: Sequence[str] = ()) -> Structure:
    """Let the network's code follow where it can, and freeze what fails on a shrunk copy; the rest runs together."""
    if all(group.frozen_because for group in structure.groups):
        return structure
    groups = with_attributes(model, structure)
    proof = Proof(model, inputs, bool(structure.trace.unseen))
    if proof.failure([group for group in groups if not group.frozen_because]) is None:
        return replace(structure, groups=_relieved(proof, groups))
    fails = _either(proof)
    if structure.again is None:
        structure = read_structure(model, inputs, freeze, known=structure)
        groups = with_attributes(model, structure)
    proof.training = True
    scribe = Scribe(model, inputs, structure, proof)
    groups = scribe.followed(groups)
    if proof.failure([group for group in groups if not group.frozen_because]) is None:
        return replace(structure, groups=_relieved(proof, groups))
    return replace(structure, groups=_relieved(proof, _sift(fails, groups, scribe)))


def _relieved(proof: Proof, groups: tuple[ChannelGroup, ...]) -> tuple[ChannelGroup, ...]:
    """Drop the doubts of groups that turn out exact."""
    doubted = [g for g in groups if not g.frozen_because and isinstance(g.approximate_because, Doubtful)]
    if not doubted:
        return groups
    certain = [replace(group, approximate_because=None) for group in doubted]
    proved = certain if proof.failure(certain) is None else [g for g in certain if proof.failure([g]) is None]
    by_name = {group.name: group for group in proved}
    return tuple(by_name.get(group.name, group) for group in groups)


def _either(proof: Proof) -> Failure:
    """Try dry first, which is quick, then for real."""
    if not proof.dries:
        return proof.failure
    return lambda groups: proof.dry_failure(groups) or proof.failure(groups)


def analyze_structure(model: nn.Module, inputs: Sequence[Any], freeze: Sequence[str] = ()) -> Structure:
    """Trace a network, find its groups and prove on a shrunk copy that what is prunable runs."""
    with without_collecting():
        return settle(model, inputs, read_structure(model, inputs, freeze), freeze)


def find_groups(model: nn.Module, inputs: Sequence[Any], freeze: Sequence[str] = ()) -> list[ChannelGroup]:
    """Find which channels of a network hang together, and which can be removed.

    Args:
        model: any module; it is left as it was.
        inputs: positional arguments of `forward`, nested lists and dicts of tensors allowed.
        freeze: patterns of layer names (`fnmatch`) that are to stay whole.

    Returns:
        Prunable and frozen groups, in the order of their first layer; what is prunable has been removed once from a
        copy, which ran and gave the masked network's output.

    Raises:
        LatpruneError: the network does not run on the inputs, or a pattern names nothing.
    """
    return list(analyze_structure(model, inputs, freeze).groups)
