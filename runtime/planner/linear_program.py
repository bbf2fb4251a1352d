"""A linear program put together in blocks of columns and rows, solved by HiGHS: equal inputs, equal solution."""

import os
import sys
from dataclasses import dataclass, field

import highspy
import numpy as np

from tidegate.runtime.planner.plan_inputs import Flags, Floats, PlanError

MIP_NODES = 2000  # a limit by nodes, not by time: the same input gives the same plan


@dataclass
class Program:
    """Columns and rows of a linear program, put together in blocks."""

    cost: list[Floats] = field(default_factory=list)
    lower: list[Floats] = field(default_factory=list)
    upper: list[Floats] = field(default_factory=list)
    integer: list[Flags] = field(default_factory=list)
    columns: int = 0
    row_lower: list[float] = field(default_factory=list)
    row_upper: list[float] = field(default_factory=list)
    row_index: list[list[int]] = field(default_factory=list)
    row_value: list[list[float]] = field(default_factory=list)

    def block(self, count: int, cost: float | Floats, lower: float | Floats, upper: float | Floats,
              *, integer: bool = False) -> int:  # fmt: skip
        """New columns; gives the number of the first."""
        first = self.columns
        for kept, given in ((self.cost, cost), (self.lower, lower), (self.upper, upper)):
            kept.append(np.broadcast_to(np.asarray(given, dtype=float), (count,)).copy())
        self.integer.append(np.full(count, integer))
        self.columns += count
        return first

    def row(self, terms: list[tuple[int, float]], lower: float, upper: float) -> int:
        """A new row; gives its number."""
        self.row_index.append([column for column, _ in terms])
        self.row_value.append([value for _, value in terms])
        self.row_lower.append(lower)
        self.row_upper.append(upper)
        return len(self.row_lower) - 1

    def add(self, row: int, column: int, value: float) -> None:
        """One more term of a row."""
        self.row_index[row].append(column)
        self.row_value[row].append(value)

    def solve(self, mip_gap: float | None = None) -> tuple[Floats, tuple[Floats, Floats], float, float]:
        """(columns, duals of rows and of columns, objective, proved bound). mip_gap: share that is near enough."""
        lp = highspy.HighsLp()
        lp.num_col_, lp.num_row_ = self.columns, len(self.row_lower)
        lp.col_cost_, lp.col_lower_, lp.col_upper_ = (np.concatenate(x) for x in (self.cost, self.lower, self.upper))
        lp.row_lower_, lp.row_upper_ = np.array(self.row_lower), np.array(self.row_upper)
        lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        lp.a_matrix_.start_ = np.concatenate([[0], np.cumsum([len(one) for one in self.row_index])]).astype(np.int32)
        lp.a_matrix_.index_ = np.concatenate([np.array(one, dtype=np.int32) for one in self.row_index])
        lp.a_matrix_.value_ = np.concatenate([np.array(one, dtype=float) for one in self.row_value])
        whole = np.concatenate(self.integer)
        if whole.any():
            kinds = (highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger)
            lp.integrality_ = [kinds[int(one)] for one in whole]
        solver = _new_solver()
        solver.setOptionValue("output_flag", False)
        solver.setOptionValue("threads", 1)
        solver.setOptionValue("random_seed", 1)
        solver.setOptionValue("mip_max_nodes", MIP_NODES)
        if mip_gap is not None:
            solver.setOptionValue("mip_rel_gap", mip_gap)
        solver.passModel(lp)
        solver.run()
        status = solver.getModelStatus()
        info = solver.getInfo()
        limited = whole.any() and info.primal_solution_status == 2
        if status != highspy.HighsModelStatus.kOptimal and not limited:
            raise PlanError(f"the solver ended with {solver.modelStatusToString(status)}")
        found = solver.getSolution()
        bound = info.mip_dual_bound if whole.any() else info.objective_function_value
        duals = (np.array(found.row_dual), np.array(found.col_dual))
        return np.array(found.col_value), duals, info.objective_function_value, bound


def _new_solver() -> highspy.Highs:
    """A new one for each program: a limit of time counts over the life of the object. The first prints a banner."""
    sys.stdout.flush()
    kept, sink = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 1)
        return highspy.Highs()
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(sink)
