"""Rows that come one at a time, against a list."""

from __future__ import annotations

import numpy as np

from come_nav.core.growing import GrowingRows


def test_rows_are_those_of_a_list_and_views_keep_theirs():
    rng = np.random.default_rng(0)
    table, rows = GrowingRows((3,)), []
    assert table.rows.shape == (0, 3)
    for number in range(200):
        rows.append(rng.normal(size=3))
        assert table.append(rows[-1]) == number
        if number == 63:
            early = table.rows  # the table is full: the next row makes a larger one
    np.testing.assert_array_equal(table.rows, rows)
    np.testing.assert_array_equal(early, rows[:64])
    assert len(table) == 200
    assert table.nbytes == 256 * 3 * 8
    table.clear()
    assert table.rows.shape == (0, 3)


def test_scalars_and_types():
    table = GrowingRows((), np.bool_)
    for value in (True, False, True):
        table.append(value)
    assert table.rows.dtype == np.bool_
    assert table.rows.tolist() == [True, False, True]


def test_rows_after_one_that_is_dropped_move_up():
    table = GrowingRows((2,))
    for number in range(5):
        table.append((number, -number))
    table.drop(1)
    table.drop(3)  # the last
    np.testing.assert_array_equal(table.rows, [(0, 0), (2, -2), (3, -3)])
    assert table.append((9, 9)) == 3
