"""The compiled loop that finds where the outlines of a mesh pass between neighbouring samples of its renders."""

from __future__ import annotations

from typing import no_type_check

import numpy as np
from jaxtyping import Float32, Float64, Int32
from numba import njit, prange
from numpy import ndarray

from rl3d.render._threads import follow_torch


def outlines(
    screen: Float64[ndarray, "v n 3"],
    edges: Int32[ndarray, "e 2"],
    opposite: Int32[ndarray, "e 2"],
    inverse_depth: Float32[ndarray, "v h w"],
    near: float,
) -> Int32[ndarray, "v 2 h w"]:
    """Find the outline that separates a sample from the next to the right (``[:, 0]``) and from the next below (``[:, 1]``).

    An edge is on the outline where all faces at it lie on the same side of it in the picture. Pairs in a row are cut by edges
    that are steeper than 45 degrees, pairs in a column by the others, so that each stretch of an outline is met once a row or
    once a column. An outline that something nearer hides, or behind which the surface goes on, separates nothing; of several,
    the nearest counts.

    Args:
        screen: Places of the vertices in samples, to the right and down, and depths.
        edges: Pairs of vertices.
        opposite: The third corners of the one or two faces at each edge; -1 where there is no second.
        inverse_depth: Of what each sample sees; 0 for nothing.
        near: Edges that reach nearer to the camera's plane are left out.

    Returns:
        Twice the edge's index, and one more if the surface is on the side of the first sample; -1 where no outline passes.
    """
    found = np.full((len(screen), 2, *inverse_depth.shape[1:]), -1, np.int32)
    follow_torch()
    _outlines(screen, edges, opposite, inverse_depth, near, found)
    return found


@njit(parallel=True, cache=True)
@no_type_check
def _outlines(screen, edges, opposite, inverse_depth, near, found):
    views, h, w = inverse_depth.shape
    for view in prange(views):
        nearest = np.zeros((2, h, w), np.float64)
        for e in range(len(edges)):
            i, j = edges[e]
            if screen[view, i, 2] <= near or screen[view, j, 2] <= near:
                continue
            ax, ay, bx, by = screen[view, i, 0], screen[view, i, 1], screen[view, j, 0], screen[view, j, 1]
            dx, dy = bx - ax, by - ay
            side = 0.0
            inner = False
            for k in range(2):
                o = opposite[e, k]
                if o < 0:
                    continue
                turn = dx * (screen[view, o, 1] - ay) - dy * (screen[view, o, 0] - ax)
                inner = inner or turn * side < 0
                if turn != 0:
                    side = turn
            if inner or side == 0:
                continue
            axis = 0 if abs(dy) >= abs(dx) else 1
            if axis == 0:
                u0, u1, a, b, rows, columns = ay, by, ax, bx, h, w
                low = (side > 0) == (dy > 0)
            else:
                u0, u1, a, b, rows, columns = ax, bx, ay, by, w, h
                low = (side < 0) == (dx > 0)
            first, last = int(np.ceil(min(u0, u1) - 0.5)), int(np.ceil(max(u0, u1) - 0.5))
            for row in range(max(first, 0), min(last, rows)):
                along = (row + 0.5 - u0) / (u1 - u0)
                column = int(np.floor(a + along * (b - a) - 0.5))
                if column < 0 or column + 1 >= columns:
                    continue
                nearness = (1 - along) / screen[view, i, 2] + along / screen[view, j, 2]
                if axis == 0:
                    one, two = inverse_depth[view, row, column], inverse_depth[view, row, column + 1]
                else:
                    one, two = inverse_depth[view, column, row], inverse_depth[view, column + 1, row]
                surface, behind = (one, two) if low else (two, one)
                if behind >= surface or behind >= 0.9999 * nearness:
                    continue
                y, x = (row, column) if axis == 0 else (column, row)
                if nearness > nearest[axis, y, x]:
                    nearest[axis, y, x] = nearness
                    found[view, axis, y, x] = 2 * e + (1 if low else 0)
