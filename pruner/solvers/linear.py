"""Choosing options as an integer linear program, solved by HiGHS.

    minimise    sum over groups g, options o of  loss[g, o] * x[g, o]
    subject to  sum over o of x[g, o] = 1                      x binary
                cost row <= limit                              one for each sum of each limited cost

A table over several groups has a variable for each of its cells, and the cells that agree with an option add up to that
option's variable. With x whole, the cell of the chosen options is 1 and all others are 0, so cells need not be binary
themselves, and the relaxation is tight. A grid over a sum of widths has variables on its lower convex hull: where the
cost is not convex in that sum, the program is a little too cheap, and what comes out has to be priced anew.

Source: the local-marginal polytope, Wainwright and Jordan, Graphical Models, Exponential Families, and Variational
Inference, 2008, section 4.1; HiGHS, Huangfu and Hall, 2018.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import highspy
import numpy as np

from pruner.solvers.problem import Axis, Floats, Grid, Ints, Limit, Problem, Table

LOSS_SCALE = 1e3
"""What a known solution loses, in the objective: HiGHS' tolerances are absolute."""
TIE = 1e-6
"""Of equally good choices the cheapest is wanted: this share of that loss is the costs'."""


@dataclass(frozen=True)
class Found:
    """What HiGHS found.

    Attributes:
        choice: the best options, or None where none keeps the limits or none was found in time.
        bound: importance that every choice within the limits loses at least.
        nodes: of the search.
        impossible: whether it is proved that no choice keeps the limits.
    """

    choice: Ints | None
    bound: float
    nodes: int
    impossible: bool = False


class _Quiet(highspy.Highs):
    """HiGHS without callbacks: nobody asks for them, and switching them on prints a banner on standard output."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def enableCallbacks(self) -> None:  # noqa: N802
        """Switch nothing on."""


class LinearProgram:
    """The program of one problem; rows and columns are collected, and handed over at once."""

    def __init__(self, problem: Problem, most_lost: float | None = None) -> None:
        """Write groups, blocks and limits down.

        Args:
            problem: to solve.
            most_lost: what a known solution loses; options that lose more by themselves are left out.
        """
        self.problem = problem
        total = sum(float(losses.max()) for losses in problem.losses)
        self.most_lost = most_lost if most_lost else total
        self.scale = LOSS_SCALE / self.most_lost if self.most_lost > 0 else 1.0
        self._objective: list[Floats] = []
        self._rows: list[tuple[float, float, Ints, Floats]] = []
        self._columns = 0
        self._cells: dict[tuple[int, ...], Ints] = {}
        self.first = [self._add(losses * self.scale) for losses in problem.losses]
        self.binaries = self._columns
        for start, losses in zip(self.first, problem.losses, strict=True):
            self._row(1.0, 1.0, start + np.arange(len(losses)), np.ones(len(losses)))
        for block, *others in problem.blocks:
            for group in others:
                self._row(0.0, 0.0, np.array([self.first[block], self.first[group]]), np.array([1.0, -1.0]))
        for limit in problem.limits:
            self._limit(limit)

    def _add(self, objective: Floats) -> int:
        start = self._columns
        self._objective.append(objective)
        self._columns += len(objective)
        return start

    def _row(self, low: float, high: float, columns: Ints, values: Floats) -> None:
        self._rows.append((low, high, columns, values))

    def _limit(self, limit: Limit) -> None:
        cost = limit.cost
        unit = max(abs(limit.most), 1e-300)
        priced = [self._price(part) for part in cost.parts]
        rows = undominated(cost.sums, cost.constants)
        share = TIE * LOSS_SCALE / len(rows)
        for row in rows:
            members = np.flatnonzero(cost.sums[row])
            columns = [priced[number][0] for number in members]
            values = [priced[number][1] * cost.sums[row, number] for number in members]
            summed = _added_up(columns, values)
            self._row(-highspy.kHighsInf, (limit.most - cost.constants[row]) / unit, summed[0], summed[1] / unit)
            self._tie(summed[0], share * summed[1] / unit)

    def _tie(self, columns: Ints, values: Floats) -> None:
        flat = np.concatenate(self._objective)
        flat[columns] += values
        self._objective = [flat]

    def _price(self, part: Table | Grid) -> tuple[Ints, Floats]:
        """The columns that price a part, and the values there."""
        if isinstance(part, Grid):
            return self._hull(part)
        if len(part.groups) == 1:
            (group,) = part.groups
            return self.first[group] + np.arange(len(part.values)), part.values
        return self._cells_of(part.groups, part.values.shape).ravel(), part.values.ravel()

    def _cells_of(self, groups: tuple[int, ...], shape: tuple[int, ...]) -> Ints:
        """The columns of a table's cells, one set for all tables over the same groups."""
        if groups not in self._cells:
            start = self._add(np.zeros(int(np.prod(shape))))
            cells = start + np.arange(int(np.prod(shape))).reshape(shape)
            for axis, group in enumerate(groups):
                by_option = np.moveaxis(cells, axis, 0).reshape(shape[axis], -1)
                for option, agreeing in enumerate(by_option):
                    self._sums_to_option(agreeing, group, option)
            self._cells[groups] = cells
        return self._cells[groups]

    def _sums_to_option(self, cells: Ints, group: int, option: int) -> None:
        columns = np.append(cells, self.first[group] + option)
        self._row(0.0, 0.0, columns, np.append(np.ones(len(cells)), -1.0))

    def _hull(self, grid: Grid) -> tuple[Ints, Floats]:
        """A grid's points on the lower convex hull along its one sum, for each option of its other axes."""
        wide = max(range(len(grid.axes)), key=lambda axis: len(grid.axes[axis].groups))
        axis = grid.axes[wide]
        values = np.moveaxis(grid.values, wide, -1)
        lines, places = values.reshape(-1, values.shape[-1]), list(np.ndindex(values.shape[:-1]))
        kept = [lower_hull(axis.counts, line) for line in lines]
        start = self._add(np.zeros(sum(len(hull) for hull in kept)))
        columns = np.split(start + np.arange(sum(map(len, kept))), np.cumsum([len(hull) for hull in kept])[:-1])
        others = [other for number, other in enumerate(grid.axes) if number != wide]
        for position, other in enumerate(others):
            self._match(other, position, places, columns)
        every = np.concatenate(columns)
        self._row(1.0, 1.0, every, np.ones(len(every)))
        counts = np.concatenate([axis.counts[hull] for hull in kept]).astype(np.float64)
        self._adds_up(axis, every, counts)
        return every, np.concatenate([line[hull] for line, hull in zip(lines, kept, strict=True)])

    def _match(self, axis: Axis, position: int, places: list[tuple[int, ...]], columns: list[Ints]) -> None:
        """The points at one count of an axis of a single group add up to the options that have this count."""
        (group,), (adds,) = axis.groups, axis.adds
        for number, count in enumerate(axis.counts):
            options = np.flatnonzero(axis.constant + adds == count)
            agreeing = np.concatenate(
                [c for place, c in zip(places, columns, strict=True) if place[position] == number]
            )
            signs = np.append(np.ones(len(agreeing)), -np.ones(len(options)))
            self._row(0.0, 0.0, np.append(agreeing, self.first[group] + options), signs)

    def _adds_up(self, axis: Axis, points: Ints, counts: Floats) -> None:
        """The chosen point's count is what the groups' options add up to."""
        columns, values = [points], [counts]
        for group, adds in zip(axis.groups, axis.adds, strict=True):
            columns.append(self.first[group] + np.arange(len(adds)))
            values.append(-adds.astype(np.float64))
        unit = max(float(counts.max()), 1.0)
        self._row(axis.constant / unit, axis.constant / unit, np.concatenate(columns), np.concatenate(values) / unit)

    def solve(self, *, gap: float, time_limit_s: float, start: Ints | None = None) -> Found:
        """Solve on one core.

        Args:
            gap: relative, at which to stop.
            time_limit_s: after which the best so far is given back.
            start: options to begin with, which should keep the limits.
        """
        model = self._model()
        solver = _start(model, gap, time_limit_s)
        if start is not None:
            first = highspy.HighsSolution()
            chosen = np.zeros(self._columns)
            chosen[[at + option for at, option in zip(self.first, start, strict=True)]] = 1.0
            first.col_value = self._filled(chosen, start)
            solver.setSolution(first)
        solver.run()
        if start is not None and _misjudged(solver, model):
            solver = _start(model, gap, time_limit_s)
            solver.run()
        return self._read(solver)

    def _read(self, solver: _Quiet) -> Found:
        status, info = solver.getModelStatus(), solver.getInfo()
        impossible = status in {highspy.HighsModelStatus.kInfeasible, highspy.HighsModelStatus.kUnboundedOrInfeasible}
        choice = None
        if not impossible and info.primal_solution_status == highspy.kSolutionStatusFeasible:
            values = np.asarray(solver.getSolution().col_value)
            choice = np.array(
                [
                    int(np.argmax(values[at : at + len(losses)]))
                    for at, losses in zip(self.first, self.problem.losses, strict=True)
                ],
                dtype=np.int64,
            )
        ties = TIE * LOSS_SCALE * len(self.problem.limits)
        bound = 0.0 if impossible else max((float(info.mip_dual_bound) - ties) / self.scale, 0.0)
        return Found(choice, bound, int(info.mip_node_count), impossible)

    def _filled(self, chosen: Floats, choice: Ints) -> list[float]:
        """The start with its tables' cells (hull points are left to HiGHS)."""
        for groups, cells in self._cells.items():
            chosen[cells[tuple(choice[group] for group in groups)]] = 1.0
        return [float(value) for value in chosen]

    def _model(self) -> highspy.HighsLp:
        model = highspy.HighsLp()
        model.num_col_, model.num_row_ = self._columns, len(self._rows)
        model.col_cost_ = np.concatenate(self._objective)
        upper = np.ones(self._columns)
        upper[: self.binaries][np.concatenate(self.problem.losses) > self.most_lost * (1 + 1e-9)] = 0.0
        model.col_lower_, model.col_upper_ = np.zeros(self._columns), upper
        model.row_lower_ = np.array([low for low, _, _, _ in self._rows])
        model.row_upper_ = np.array([high for _, high, _, _ in self._rows])
        matrix = model.a_matrix_
        matrix.format_ = highspy.MatrixFormat.kRowwise
        matrix.start_ = np.concatenate([[0], np.cumsum([len(columns) for _, _, columns, _ in self._rows])])
        matrix.index_ = np.concatenate([columns for _, _, columns, _ in self._rows])
        matrix.value_ = np.concatenate([values for _, _, _, values in self._rows])
        kinds = np.array([highspy.HighsVarType.kInteger] * self.binaries)
        free = np.array([highspy.HighsVarType.kContinuous] * (self._columns - self.binaries))
        model.integrality_ = [*kinds, *free]
        return model


def _start(model: highspy.HighsLp, gap: float, time_limit_s: float) -> _Quiet:
    """HiGHS with a model, on one core."""
    solver = _Quiet()
    for name, value in (
        ("output_flag", False),
        ("threads", 1),
        ("time_limit", time_limit_s),
        ("mip_rel_gap", gap),
        ("mip_abs_gap", 0.0),
        ("random_seed", 0),
    ):
        solver.setOptionValue(name, value)
    solver.passModel(model)
    return solver


def _misjudged(solver: _Quiet, model: highspy.HighsLp) -> bool:
    """Whether HiGHS believes in another objective than its own solution has, so that it stopped too early.

    HiGHS 1.16 may lose a constant of the objective where its presolve meets a starting solution: it then takes the
    start for an optimum of value 0.
    """
    values, told = np.asarray(solver.getSolution().col_value), solver.getInfo().objective_function_value
    if len(values) == 0:
        return False
    return not np.isclose(float(np.asarray(model.col_cost_) @ values), told, rtol=1e-6, atol=1e-6 * LOSS_SCALE)


def _added_up(columns: Sequence[Ints], values: Sequence[Floats]) -> tuple[Ints, Floats]:
    """Columns that occur several times once, with their values added."""
    if not columns:
        return np.zeros(0, dtype=np.int64), np.zeros(0)
    unique, places = np.unique(np.concatenate(columns), return_inverse=True)
    added: Floats = np.bincount(places, np.concatenate(values), minlength=len(unique)).astype(np.float64)
    return unique, added


def count_columns(problem: Problem) -> int:
    """How many columns the program of a problem has, not counting those of grids."""
    parts = {part.groups: part for limit in problem.limits for part in limit.cost.parts if isinstance(part, Table)}
    cells = sum(part.values.size for part in parts.values() if len(part.groups) > 1)
    return sum(len(losses) for losses in problem.losses) + cells


def undominated(sums: Floats, constants: Floats) -> list[int]:
    """The sums that no other contains (parts cost nothing or more, so that such a one is never the largest)."""
    order = sorted(range(len(constants)), key=lambda row: (-sums[row].sum(), -constants[row]))
    kept: list[int] = []
    for row in order:
        if not any(constants[row] <= constants[other] and (sums[row] <= sums[other]).all() for other in kept):
            kept.append(row)
    return kept


def lower_hull(counts: Ints, values: Floats) -> Ints:
    """Places of the points on the lower convex hull of a function given at ascending counts."""
    kept: list[int] = []
    for place in range(len(counts)):
        while len(kept) > 1:
            before, middle = kept[-2], kept[-1]
            run = float(counts[place] - counts[before])
            line = values[before] + (values[place] - values[before]) * float(counts[middle] - counts[before]) / run
            if values[middle] < line:
                break
            kept.pop()
        kept.append(place)
    return np.array(kept, dtype=np.int64)
