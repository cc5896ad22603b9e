"""Decides how points are kept by row number while rows are added and changed, and in which order they stand."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from population.dominance import BoolArray, FloatArray, Points, total_costs

IntArray = npt.NDArray[np.intp]
Key = tuple[float, ...]


class Rows:
    """Points by row number, where rows are added and changed. Row numbers are the order of arrival."""

    def __init__(self, objectives: int) -> None:
        self._count = 0
        self._table = np.empty((3, 16, objectives))

    def __len__(self) -> int:
        return self._count

    @property
    def points(self) -> Points:
        """All rows (N, M), as views that later changes show in; rows that were given up keep their last values."""
        costs, low, high = self._table[:, : self._count]
        return Points(costs, low, high)

    def append(self, costs_M: FloatArray, low_M: FloatArray, high_M: FloatArray) -> int:
        """The number of the new row."""
        if self._count == self._table.shape[1]:
            self._table = np.concatenate([self._table, np.empty_like(self._table)], axis=1)
        self._count += 1
        self.change(self._count - 1, costs_M, low_M, high_M)
        return self._count - 1

    def change(self, row: int, costs_M: FloatArray, low_M: FloatArray, high_M: FloatArray) -> None:
        self._table[0, row], self._table[1, row], self._table[2, row] = costs_M, low_M, high_M

    def later(self, rows: IntArray, than: int) -> BoolArray:
        """Which of the rows have a larger key than one."""
        costs, one = self._table[0, rows], np.array([than], dtype=np.intp)
        totals, total = total_costs(costs), total_costs(self._table[0, one])[0]
        found: BoolArray = totals > total
        ties = np.flatnonzero(totals == total)
        if len(ties):
            (key,) = self.keys(one)
            found[ties] = [other > key for other in self.keys(rows[ties])]
        return found

    def keys(self, rows: IntArray) -> list[Key]:
        """What orders the rows as `dominance.ranking` does: total cost, costs, row."""
        costs = self._table[0, rows]
        columns = [total_costs(costs), *costs.T, rows]
        return list(zip(*(column.tolist() for column in columns), strict=True))
