"""Pairs of rows and columns whose gains add up to most."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def best_pairs(gains: NDArray[np.floating]) -> NDArray[np.int64]:
    """Pair rows with columns, each at most once, so that the sum of the pairs' gains is the largest possible.

    Pairs that have no rival are taken at once. The others are paired by shortest augmenting paths (Jonker and
    Volgenant, "A shortest augmenting path algorithm for dense and sparse linear assignment problems", Computing 38,
    1987).

    Args:
        gains: float `[N, M]`, finite; entries of 0 and below are never paired.

    Returns:
        int64 `[P, 2]`, row and column of each pair, in the order of rows.
    """
    possible = gains > 0
    row_choices, column_choices = possible.sum(axis=1), possible.sum(axis=0)
    alone = possible & (row_choices == 1)[:, None] & (column_choices == 1)
    pairs = np.argwhere(alone)
    rows = np.flatnonzero((row_choices > 0) & ~alone.any(axis=1))
    if not len(rows):
        return pairs
    columns = np.flatnonzero(possible[rows].any(axis=0))
    costs = -np.maximum(np.asarray(gains, np.float64)[np.ix_(rows, columns)], 0.0)
    chosen = _assign(costs) if len(rows) <= len(columns) else _assign(costs.T)[:, ::-1]
    contested = np.stack([rows[chosen[:, 0]], columns[chosen[:, 1]]], axis=1)
    both = np.concatenate([pairs, contested[possible[contested[:, 0], contested[:, 1]]]])
    return both[np.argsort(both[:, 0])]


def _assign(costs: NDArray[np.float64]) -> NDArray[np.int64]:
    """A column for each row at the smallest sum of costs: float `[N, M]` with N <= M to int64 `[N, 2]`."""
    row_of = np.full(costs.shape[1], -1)
    row_price, column_price = costs.min(axis=1), np.zeros(costs.shape[1])
    # Whoever has his cheapest column to himself begins with it.
    waiting = []
    for row, column in enumerate(costs.argmin(axis=1).tolist()):
        if row_of[column] < 0:
            row_of[column] = row
        else:
            waiting.append(row)
    for row in waiting:
        _augment(costs, row, row_of, row_price, column_price)
    columns = np.flatnonzero(row_of >= 0)
    return np.stack([row_of[columns], columns], axis=1)


def _augment(
    costs: NDArray[np.float64],
    start: int,
    row_of: NDArray[np.int64],
    row_price: NDArray[np.float64],
    column_price: NDArray[np.float64],
) -> None:
    """Give a row a column, and those who have to make way for it others, along the cheapest path; in place."""
    width = costs.shape[1]
    distance = np.full(width, np.inf)
    before = np.full(width, -1)
    done = np.zeros(width, bool)
    row, column, length = start, -1, 0.0
    while True:
        through = length + costs[row] - row_price[row] - column_price
        shorter = ~done & (through < distance)
        distance[shorter] = through[shorter]
        before[shorter] = column
        column = int(np.where(done, np.inf, distance).argmin())
        length = distance[column]
        if row_of[column] < 0:
            break
        done[column] = True
        row = row_of[column]
    row_price[start] += length
    saved = length - distance[done]
    row_price[row_of[done]] += saved
    column_price[done] -= saved
    while column >= 0:
        previous = before[column]
        row_of[column] = start if previous < 0 else row_of[previous]
        column = previous
