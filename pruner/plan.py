"""The plan: which channels are kept and why, as plain JSON; with the weights it is all that a pruned network needs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lut.errors import RunError
from pruner.atomic import write_text

VERSION = 1
FORMAT = "latprune plan"

Lost = Mapping[str, Mapping[int, Sequence[int]]]
"""As in `profiler.cut`, which would bring torch with it: for each parameter and dimension the positions that go."""


@dataclass(frozen=True)
class PrunePlan:
    """What pruning decided.

    Attributes:
        network_hash: of the unpruned network's structure and shapes.
        kept: for each prunable group the choices that stay, ascending.
        sizes: each prunable group's width before pruning.
        removed: for each parameter and buffer of the model, and each dimension, the positions that go.
        shapes: what shape each of these is left with.
        removed_blocks: names of residual blocks that are left out.
        dropped: parameters and buffers that are gone with them.
        programs: modules that are run as programs, as `lut.program` writes them; all others are the user's own, with
            smaller parameters.
        budget_ms, memory_budget_bytes: what was asked, or None.
        prediction: `predicted_ms`, `low_ms` and `high_ms` of the pruned network, or None.
        fingerprint: of the table that priced it, as JSON, or None.
        importance, normalize, solver, seed: how the channels were chosen.
        frozen: the patterns of layers that were kept whole.
        created_with: versions of latprune and of what it ran with.
        version: of this format.
    """

    network_hash: str
    kept: Mapping[str, tuple[int, ...]]
    sizes: Mapping[str, int]
    removed: Lost
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    removed_blocks: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    programs: tuple[Mapping[str, Any], ...] = ()
    budget_ms: float | None = None
    memory_budget_bytes: float | None = None
    prediction: Mapping[str, float] | None = None
    fingerprint: Mapping[str, Any] | None = None
    importance: str = "fisher"
    normalize: str = "latency"
    solver: str = ""
    seed: int = 0
    frozen: tuple[str, ...] = ()
    created_with: Mapping[str, str] = field(default_factory=dict)
    version: int = VERSION

    def __post_init__(self) -> None:
        removed = {name: {d: tuple(gone) for d, gone in dims.items()} for name, dims in self.removed.items()}
        object.__setattr__(self, "removed", removed)

    @property
    def form(self) -> str:
        """Whether the network comes back as the user's own modules alone ("module"), or with programs ("program")."""
        return "program" if self.programs else "module"

    @property
    def widths(self) -> dict[str, int]:
        """Channels kept in each group."""
        return {group: len(choices) for group, choices in self.kept.items()}

    @property
    def removal(self) -> dict[str, list[int]]:
        """For each group the choices that go, as `shrink` takes them."""
        return {group: sorted(set(range(size)) - set(self.kept[group])) for group, size in self.sizes.items()}

    def to_json(self) -> dict[str, Any]:
        """The plan as plain JSON; positions are written as ranges ("0-3,7")."""
        return {
            "format": FORMAT,
            "version": self.version,
            "network_hash": self.network_hash,
            "form": self.form,
            "widths": self.widths,
            "sizes": dict(self.sizes),
            "kept": {group: write_ranges(choices) for group, choices in self.kept.items()},
            "removed": {
                name: {str(dimension): write_ranges(gone) for dimension, gone in dimensions.items()}
                for name, dimensions in self.removed.items()
            },
            "shapes": {name: list(shape) for name, shape in self.shapes.items()},
            "programs": list(self.programs),
            "removed_blocks": list(self.removed_blocks),
            "dropped": list(self.dropped),
            "budget_ms": self.budget_ms,
            "memory_budget_bytes": self.memory_budget_bytes,
            "prediction": dict(self.prediction) if self.prediction is not None else None,
            "fingerprint": dict(self.fingerprint) if self.fingerprint is not None else None,
            "importance": self.importance,
            "normalize": self.normalize,
            "solver": self.solver,
            "seed": self.seed,
            "frozen": list(self.frozen),
            "created_with": dict(self.created_with),
        }

    @staticmethod
    def from_json(data: Any) -> "PrunePlan":
        """The plan that `to_json` wrote.

        Raises:
            RunError: it is no plan, a damaged one, or one that a newer latprune wrote.
        """
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise RunError("This is not a plan of latprune.")
        if not isinstance(data.get("version"), int):
            raise RunError("The plan is damaged: it has no version.")
        if data["version"] > VERSION:
            raise RunError(
                f"The plan has version {data['version']}, and this latprune reads up to {VERSION}: "
                "a newer latprune wrote it. Update this one."
            )
        try:
            return PrunePlan(
                network_hash=data["network_hash"],
                kept={group: read_ranges(text) for group, text in data["kept"].items()},
                sizes={group: int(size) for group, size in data["sizes"].items()},
                removed={
                    name: {int(dimension): read_ranges(text) for dimension, text in dimensions.items()}
                    for name, dimensions in data["removed"].items()
                },
                shapes={name: tuple(shape) for name, shape in data["shapes"].items()},
                removed_blocks=tuple(data["removed_blocks"]),
                dropped=tuple(data.get("dropped", ())),
                programs=tuple(data.get("programs", ())),
                budget_ms=data["budget_ms"],
                memory_budget_bytes=data["memory_budget_bytes"],
                prediction=data["prediction"],
                fingerprint=data["fingerprint"],
                importance=data["importance"],
                normalize=data["normalize"],
                solver=data["solver"],
                seed=data["seed"],
                frozen=tuple(data["frozen"]),
                created_with=data["created_with"],
                version=data["version"],
            )
        except KeyError as error:
            raise RunError(f"The plan is damaged: it lacks {error}.") from error
        except (TypeError, ValueError, AttributeError) as error:
            raise RunError(f"The plan is damaged: {error}.") from error

    def write(self, path: Path | str) -> None:
        """Write the plan, whole or not at all."""
        write_text(Path(path), json.dumps(self.to_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n")

    @staticmethod
    def read(path: Path | str) -> "PrunePlan":
        """Read a plan.

        Raises:
            RunError: there is no such file, or it holds no plan that this latprune can read.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise RunError(f"There is no {path}.") from error
        except (OSError, ValueError) as error:
            raise RunError(f"{path} cannot be read as a plan: {error}.") from error
        try:
            return PrunePlan.from_json(data)
        except RunError as error:
            raise RunError(f"{path}: {error}") from error


def write_ranges(positions: Sequence[int]) -> str:
    """Write positions, in any order, as ascending ranges: `[0, 1, 2, 3, 7]` is "0-3,7"."""
    runs: list[list[int]] = []
    for position in sorted(set(positions)):
        if runs and position == runs[-1][1] + 1:
            runs[-1][1] = position
        else:
            runs.append([position, position])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def read_ranges(text: str) -> tuple[int, ...]:
    """Read what `write_ranges` wrote.

    Raises:
        ValueError: these are no ranges.
    """
    positions: list[int] = []
    for run in text.split(",") if text else []:
        first, _, last = run.partition("-")
        positions.extend(range(int(first), int(last or first) + 1))
    return tuple(positions)
