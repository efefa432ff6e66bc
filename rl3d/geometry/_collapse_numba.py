"""Compiled collapse of edges by quadric error, which keeps a manifold a manifold."""

from __future__ import annotations

import heapq
from typing import no_type_check

import numpy as np
from numba import njit

COMPILED = {"cache": True, "nogil": True, "error_model": "numpy"}


@njit(**COMPILED)
@no_type_check
def collapse(points, faces, target, least_cosine, least_quality):
    """Collapse edges, the cheapest first, until ``target`` faces are left or none may go; return which faces are left.

    ``points`` ``[n 3]`` and ``faces`` ``[m 3]`` are written to. An edge may go if the surface stays what it is (the link
    condition of Dey et al. 1999: its ends have no common neighbours but those across its two faces), touches no border, turns
    no face beyond ``least_cosine``, and makes no sliver: twice the area over the longest side's square stays above
    ``least_quality``. A face's corners are kept in linked lists, one a vertex; entries of the heap age when a vertex moves.
    """
    n, m = len(points), len(faces)
    quadrics = np.zeros((n, 10))
    head, tail = np.full(n, -1, np.int64), np.full(n, -1, np.int64)
    following = np.full(3 * m, -1, np.int64)
    alive, age, mark = np.ones(m, np.bool_), np.zeros(n, np.int64), np.full(n, -1, np.int64)
    for f in range(m):
        a, b, c = points[faces[f, 0]], points[faces[f, 1]], points[faces[f, 2]]
        normal = np.cross(b - a, c - a)
        size = np.sqrt((normal * normal).sum())
        if size > 0:
            normal /= size
        _add_plane(quadrics, faces[f], normal, -(normal * a).sum(), size / 2)
        for k in range(3):
            v = faces[f, k]
            if tail[v] < 0:
                head[v] = 3 * f + k
            else:
                following[tail[v]] = 3 * f + k
            tail[v] = 3 * f + k
    heap = [(0.0, 0, 0, 0)]
    heap.clear()
    for f in range(m):
        for k in range(3):
            u, v = faces[f, k], faces[f, (k + 1) % 3]
            if u < v:
                heap.append((_place(points, quadrics, u, v)[0], u, v, 0))
    heapq.heapify(heap)
    left, stamp = m, 0
    while left > target and len(heap) > 0:
        _, u, v, old = heapq.heappop(heap)
        if old != age[u] + age[v] or age[u] < 0 or age[v] < 0:
            continue
        stamp += 3
        if not _may_go(points, faces, head, following, alive, mark, stamp, u, v):
            continue
        place = _place(points, quadrics, u, v)[1]
        if _spoils(points, faces, head, following, alive, u, v, place, least_cosine, least_quality) or _spoils(
            points, faces, head, following, alive, v, u, place, least_cosine, least_quality
        ):
            continue
        corner = head[v]
        while corner >= 0:
            f = corner // 3
            if alive[f]:
                if faces[f, 0] == u or faces[f, 1] == u or faces[f, 2] == u:
                    alive[f] = False
                    left -= 1
                else:
                    faces[f, corner % 3] = u
            corner = following[corner]
        following[tail[u]] = head[v]
        tail[u] = tail[v]
        points[u] = place
        quadrics[u] += quadrics[v]
        age[v] = -1
        age[u] += 1
        # Ages only grow, so a sum that is the same is of the same two ages but where one had shrunk, and none does.
        corner = head[u]
        while corner >= 0:
            f = corner // 3
            if alive[f]:
                w = faces[f, (corner % 3 + 1) % 3]
                heapq.heappush(heap, (_place(points, quadrics, u, w)[0], u, w, age[u] + age[w]))
            corner = following[corner]
    return alive


@njit(**COMPILED)
@no_type_check
def _add_plane(quadrics, face, normal, offset, area):
    """Add the square of the distance to a plane to three vertices' quadrics: xx xy xz yy yz zz, x y z, 1."""
    x, y, z = normal
    row = (x * x, x * y, x * z, y * y, y * z, z * z, x * offset, y * offset, z * offset, offset * offset)
    for k in range(3):
        for i in range(10):
            quadrics[face[k], i] += area * row[i]


@njit(**COMPILED)
@no_type_check
def _place(points, quadrics, u, v):
    """The cost of an edge's collapse, and where to: the least of its quadric, pulled a little to the edge's middle."""
    q = quadrics[u] + quadrics[v]
    middle = (points[u] + points[v]) / 2
    pull = 1e-3 * (q[0] + q[3] + q[5]) + 1e-30
    a, b, c, d, e, f = q[0] + pull, q[1], q[2], q[3] + pull, q[4], q[5] + pull
    x, y, z = pull * middle[0] - q[6], pull * middle[1] - q[7], pull * middle[2] - q[8]
    aa, bb, cc = d * f - e * e, c * e - b * f, b * e - c * d
    dd, ee, ff = a * f - c * c, b * c - a * e, a * d - b * b
    scale = 1 / (a * aa + b * bb + c * cc)
    place = np.empty(3)
    place[0], place[1], place[2] = (
        (aa * x + bb * y + cc * z) * scale,
        (bb * x + dd * y + ee * z) * scale,
        (cc * x + ee * y + ff * z) * scale,
    )
    x, y, z = place
    cost = q[0] * x * x + 2 * q[1] * x * y + 2 * q[2] * x * z + q[3] * y * y + 2 * q[4] * y * z + q[5] * z * z
    cost += 2 * (q[6] * x + q[7] * y + q[8] * z) + q[9]
    # What is flat costs nothing; short edges go first there.
    away = (points[u] - points[v]) ** 2
    return max(cost, 0.0) + 1e-3 * pull * away.sum(), place


@njit(**COMPILED)
@no_type_check
def _may_go(points, faces, head, following, alive, mark, stamp, u, v):
    """Whether an edge fulfils the link condition, with closed fans around both ends."""
    shared, degrees = 0, (0, 0)
    common = 0
    for end in range(2):
        here, there = (u, v) if end == 0 else (v, u)
        degree, neighbours = 0, 0
        corner = head[here]
        while corner >= 0:
            f = corner // 3
            if alive[f]:
                degree += 1
                for step in range(1, 3):
                    w = faces[f, (corner % 3 + step) % 3]
                    if end == 0:
                        shared += w == there
                        if mark[w] != stamp:
                            mark[w] = stamp
                            neighbours += 1
                    elif mark[w] == stamp:  # a neighbour of u, too
                        mark[w] = stamp + 1
                        common += 1
                        neighbours += 1
                    elif mark[w] != stamp + 1 and mark[w] != stamp + 2:
                        mark[w] = stamp + 2
                        neighbours += 1
            corner = following[corner]
        if degree != neighbours:  # a border, or several fans
            return False
        degrees = (degree, degrees[0])
    return shared == 2 and common == 2 and not (degrees[0] == 3 and degrees[1] == 3)


@njit(**COMPILED)
@no_type_check
def _spoils(points, faces, head, following, alive, u, v, place, least_cosine, least_quality):
    """Whether moving ``u`` would turn a face that stays too far, or make it a sliver."""
    corner = head[u]
    while corner >= 0:
        f, k = corner // 3, corner % 3
        second, third = faces[f, (k + 1) % 3], faces[f, (k + 2) % 3]
        if alive[f] and second != v and third != v:
            b, c = points[second], points[third]
            before, after = np.cross(b - points[u], c - points[u]), np.cross(b - place, c - place)
            was, will = np.sqrt((before * before).sum()), np.sqrt((after * after).sum())
            longest = max(((b - place) ** 2).sum(), ((c - place) ** 2).sum(), ((b - c) ** 2).sum())
            if (before * after).sum() < least_cosine * was * will or will <= least_quality * longest:
                return True
        corner = following[corner]
    return False
