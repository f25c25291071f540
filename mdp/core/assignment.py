"""The assignment problem: each row takes a column of its own, so that the costs are least in all.

Shortest augmenting paths (Jonker and Volgenant 1987; the rectangular form of Crouse, 10.1109/TAES.2016.140952), with
dual variables that start at the minima of columns and rows: on counts most rows are then assigned at once.
Shape legend: n rows, m >= n columns.
"""

import numpy as np
from numpy.typing import NDArray


def assign(cost: NDArray[np.floating] | NDArray[np.integer]) -> NDArray[np.int64]:
    """The column (n,) of each row of the costs (n, m), all different, with the least sum.

    Of equal choices the lowest column is tried first.  Raises ValueError when there are more rows than columns, and
    for costs that are not finite.

    >>> assign(np.array([[4, 1, 3], [2, 0, 5]])).tolist()
    [1, 0]
    """
    costs = np.asarray(cost, dtype=np.float64)
    if costs.ndim != 2 or costs.shape[0] > costs.shape[1]:
        raise ValueError(f"cost {costs.shape}: expected a matrix with no more rows than columns")
    if not np.isfinite(costs).all():
        raise ValueError("cost: expected finite numbers")
    rows, columns = costs.shape
    row_of = np.full(columns, -1)  # of each column; -1: free
    column_of = np.full(rows, -1)
    square = rows == columns  # a column that stays free must keep the price 0
    price = costs.min(axis=0) if square and rows else np.zeros(columns)
    reduced = costs - price
    profit = reduced.min(axis=1) if rows else np.zeros(0)
    for row, column in enumerate(reduced.argmin(axis=1).tolist() if rows else []):
        if row_of[column] < 0:
            row_of[column], column_of[row] = row, column
    for unassigned in np.flatnonzero(column_of < 0).tolist():
        _augment_(costs, profit, price, row_of, column_of, unassigned)
    return column_of


def _augment_(
    costs: NDArray[np.float64],
    profit: NDArray[np.float64],
    price: NDArray[np.float64],
    row_of: NDArray[np.int64],
    column_of: NDArray[np.int64],
    start: int,
) -> None:
    """Assigns one row more, along the shortest path to a free column; updates duals and assignments."""
    distance, before = np.full(len(price), np.inf), np.full(len(price), start)
    closed = np.zeros(len(price))  # infinity where a column's distance is final
    free = np.flatnonzero(row_of < 0)
    row, reached = start, 0.0
    while True:
        through = costs[row] - price
        through += reached - profit[row]
        through += closed
        before[through < distance] = row
        np.minimum(distance, through, out=distance)
        left = distance + closed
        column = int(left.argmin())
        reached = float(left[column])
        end = int(free[left[free].argmin()])
        if left[end] == reached:
            column = end
            break
        closed[column] = np.inf
        row = int(row_of[column])
    final = np.flatnonzero(closed)
    profit[start] += reached
    profit[row_of[final]] += reached - distance[final]
    price[final] -= reached - distance[final]
    while True:  # the path back, every column of it handed to the row before it
        row = int(before[column])
        row_of[column] = row
        column_of[row], column = column, column_of[row]
        if row == start:
            return
