"""What is measured of one network on either side, and what is said of it."""

from dataclasses import dataclass, field

EXACT = 1e-8
"""Largest relative difference, in float64, of a shrunk network from the masked one that counts as rounding."""

AWAKE = 0.01
"""The mask must change the output by at least this share, or the comparison says nothing."""

TELLING = 1e-3
"""A deliberately wrong removal must differ by more than this."""

ONNX_CLOSE = 1e-3
"""Largest relative difference, in float32, of ONNX Runtime's output from PyTorch's."""

UNFINISHED = "did not end"
"""Stands for a failure while the work goes on: what a child that is stopped has said last."""


@dataclass
class Ours:
    """latprune on one network; filled stage by stage, and None stands for what was not reached.

    Attributes:
        failure: why the cell ends early: groups are not found, the child was stopped …
        failures: by stage, why it failed; the stages after it were still run.
        parameters: of the network.
        find_s: seconds of `profiler.find_groups`, its proof included.
        groups, choices, frozen, approximate: prunable groups, all that can be removed one by one in them, frozen
            groups, and prunable ones that are marked approximate.
        frozen_reasons, approximate_reasons: how many groups have each.
        prunable_share: of the parameters, those in a prunable group.
        removed_share: of the parameters, those that go when half of every group goes (rounded up, as Torch-Pruning
            rounds).
        inner_share: the same without the output layers' parameters.
        output_layers: names of the layers left out in `inner_share`.
        form: "module", or how many modules `cut` has replaced by another class: "3 programs".
        compared_on: shape of the first input of the comparison.
        difference: largest relative difference of shrunk from masked, approximate groups left whole.
        mask_effect: the same of masked from whole.
        wrong_difference: the same of shrunk from a network in which other channels are masked.
        full_finite: without half of every group, approximate ones too, the whole program runs and its output is finite.
        trains: whether it also runs in train mode; None where the whole one does not.
        onnx_difference: of ONNX Runtime's output from PyTorch's.
    """

    failure: str | None = None
    failures: dict[str, str] = field(default_factory=dict)
    parameters: int | None = None
    find_s: float | None = None
    groups: int | None = None
    choices: int | None = None
    frozen: int | None = None
    approximate: int | None = None
    frozen_reasons: dict[str, int] = field(default_factory=dict)
    approximate_reasons: dict[str, int] = field(default_factory=dict)
    prunable_share: float | None = None
    removed_share: float | None = None
    inner_share: float | None = None
    output_layers: list[str] = field(default_factory=list)
    form: str | None = None
    compared_on: list[int] | None = None
    difference: float | None = None
    mask_effect: float | None = None
    wrong_difference: float | None = None
    full_finite: bool | None = None
    trains: bool | None = None
    onnx_difference: float | None = None


@dataclass
class Peer:
    """Torch-Pruning on one network; None stands for what was not reached.

    Attributes:
        failure: the error that ended it, with its class first; or "timeout …".
        part: "whole", or "dense part" where a detector's whole program failed first (with `whole_failure`).
        build_s, prune_s: seconds to build the pruner (trace, dependency graph, all groups once), and to enumerate and
            prune all groups.
        groups: that it pruned.
        across_norms: of these, groups with a norm across the channels removed, which no tool can prune exactly.
        removed_share, inner_share: as in `Ours`.
        shape_wrong: the pruned network runs, and its outputs have other shapes.
        compare_failure: why the comparison could not be made.
        difference, mask_effect: as in `Ours`; groups with a norm across their channels left whole.
        wrong_difference: of masked from a pruned network in which other elements are left.
    """

    failure: str | None = None
    part: str | None = None
    whole_failure: str | None = None
    build_s: float | None = None
    prune_s: float | None = None
    groups: int | None = None
    across_norms: int | None = None
    removed_share: float | None = None
    inner_share: float | None = None
    output_layers: list[str] = field(default_factory=list)
    shape_wrong: bool | None = None
    compare_failure: str | None = None
    difference: float | None = None
    mask_effect: float | None = None
    wrong_difference: float | None = None

    @property
    def seconds(self) -> float | None:
        """To build, enumerate and prune."""
        return None if self.build_s is None or self.prune_s is None else self.build_s + self.prune_s


@dataclass(frozen=True)
class Verdict:
    """One word for a cell, and what stands behind it.

    Attributes:
        word: "exact", "approximate", "wrong", "fails", "nothing pruned" or "not compared".
        detail: a few words more, or "".
    """

    word: str
    detail: str = ""

    @property
    def good(self) -> bool:
        """Whether the pruned network runs and is what it should be."""
        return self.word in {"exact", "approximate"}

    def __str__(self) -> str:
        return f"{self.word}: {self.detail}" if self.detail else self.word


def judge_ours(cell: Ours) -> Verdict:
    """Say what a cell of ours proves."""
    if cell.failure:
        return Verdict("fails", cell.failure)
    if not cell.groups:
        return Verdict("nothing pruned")
    for stage in ("count", "compare", "run", "train"):
        if stage in cell.failures:
            return Verdict("fails", f"{stage}: {cell.failures[stage]}")
    if cell.full_finite is not True:
        return Verdict("wrong", "its output is not finite")
    if cell.approximate == cell.groups:
        return Verdict("approximate")
    return _compared(cell) or Verdict("approximate" if cell.approximate else "exact")


def judge_peer(cell: Peer) -> Verdict:
    """Say what a cell of Torch-Pruning proves."""
    if cell.failure:
        return Verdict("timeout" if cell.failure.startswith("timeout") else "fails", cell.failure)
    if not cell.groups:
        return Verdict("nothing pruned")
    if cell.shape_wrong:
        return Verdict("wrong", "runs, shape wrong")
    if cell.compare_failure:
        return Verdict("not compared", cell.compare_failure)
    if cell.across_norms == cell.groups:
        return Verdict("approximate")
    return _compared(cell) or Verdict("approximate" if cell.across_norms else "exact")


def _compared(cell: Ours | Peer) -> Verdict | None:
    """What speaks against exactness, or None."""
    if cell.difference is None or cell.mask_effect is None or cell.wrong_difference is None:
        return Verdict("not compared", "no difference was measured")
    if not cell.difference <= EXACT:
        return Verdict("wrong", f"differs by {cell.difference:.1g}")
    if not cell.mask_effect >= AWAKE:
        return Verdict("not compared", f"the mask changes the output by {cell.mask_effect:.1g} only")
    if not cell.wrong_difference > TELLING:
        return Verdict("not compared", f"a wrong removal differs by {cell.wrong_difference:.1g} only")
    return None
