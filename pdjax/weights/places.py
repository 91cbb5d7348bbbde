"""Which checkpoints are where their weights do not belong: another place of the series, or another run.

All that is looked at are distances and correlations between samples of the weights. A path through weights goes on: two
checkpoints are at least about as far from each other as each is from one between them, be it that the weights move
steadily (twice as far), at random (1.4 times) or about a place where they stay (as far). What breaks this is no path.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy.sparse.csgraph import connected_components

BETTER = 0.5
"""A checkpoint is moved where it makes less than this of the detour that it makes at its own place."""

CLOSER = 0.6
"""A checkpoint is off the path if its neighbours are this much closer to each other than to it."""

RELATED = 0.2
"""Checkpoints of one run correlate more than this in most matrices, unless much training is between them."""

BREAK = 3.0
"""Two runs in a row are told by a distance this many times what the steps around it would lead one to expect."""

_LEAST = 3  # checkpoints before a break: the first ones of a fast training may be far from all others


class Geometry(NamedTuple):
    """How checkpoints lie to each other, in the order of their steps."""

    steps: np.ndarray
    distances: np.ndarray  # [N, N]
    correlations: np.ndarray  # [N, N], the median over matrices

    def of(self, kept: Sequence[int]) -> "Geometry":
        """Returns that of some of them, in the given order."""
        chosen = np.array(kept, int)
        rows = chosen[:, None]
        return Geometry(self.steps[chosen], self.distances[rows, chosen], self.correlations[rows, chosen])


class Move(NamedTuple):
    """Checkpoints that fit better elsewhere, by their indices."""

    moved: tuple[int, ...]  # two: swapped
    between: tuple[int | None, int | None]  # where one belongs


class Stray(NamedTuple):
    """Checkpoints that are not of the run that most are of."""

    members: tuple[int, ...]
    pattern: Literal["alone", "mixed", "after"]


def geometry_of(steps: Sequence[int], samples: Sequence[Mapping[str, np.ndarray]]) -> Geometry:
    """Returns how checkpoints lie to each other, from values at the same places of each of their matrices."""
    if not samples:
        return Geometry(np.empty(0, int), np.empty((0, 0)), np.empty((0, 0)))
    whole = np.stack([np.concatenate(list(sample.values())) for sample in samples]).astype(np.float64)
    whole -= whole.mean(0)  # lest distances be small differences of large products
    products = whole @ whole.T
    squares = np.diag(products)
    distances = np.sqrt(np.maximum(squares[:, None] + squares[None] - 2 * products, 0))
    np.fill_diagonal(distances, 0)
    correlations = [
        _correlations(np.stack([sample[name] for sample in samples]).astype(np.float64)) for name in samples[0]
    ]
    defined = [square for square in correlations if square is not None]
    square = np.median(defined, axis=0) if defined else np.ones_like(distances)
    return Geometry(np.asarray(steps), distances, square)


def _correlations(values: np.ndarray) -> np.ndarray | None:
    """Returns the correlations [N, N] of rows; None for a matrix that never changes, which tells nothing."""
    if (values == values[0]).all():
        return None
    values = values - values.mean(1, keepdims=True)
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    return (values / np.where(norms > 0, norms, 1)) @ (values / np.where(norms > 0, norms, 1)).T


def detour(geometry: Geometry, index: int, before: int | None, after: int | None) -> float:
    """Returns what a path becomes longer by if it goes by way of a checkpoint; twice its distance at an end."""
    distances = geometry.distances
    if before is not None and after is not None:
        return float(distances[before, index] + distances[index, after] - distances[before, after])
    other = before if before is not None else after
    return 0.0 if other is None else float(2 * distances[other, index])


def strays_and_moves(geometry: Geometry) -> tuple[list[Stray], list[Move]]:
    """Returns checkpoints of other runs, and those out of order, by their indices."""
    if not len(geometry.steps):
        return [], []
    members, strays = _runs(geometry)
    moves: list[Move] = []
    for run in members:
        alone: list[int] = []
        while True:  # without what strays: others are seen in their places only then
            order, moved = _ordered(geometry, [index for index in run if index not in alone])
            if (stray := _worst(geometry, order)) is None:
                break
            alone.append(stray)
        moves += moved
        strays += [Stray((index,), "alone") for index in sorted(alone)]
    return strays, moves


def _runs(geometry: Geometry) -> tuple[list[list[int]], list[Stray]]:
    """Returns the checkpoints of each run in the order of their steps, the largest run first, and what strays.

    Checkpoints of one run are linked, through those between them, by correlation. Those that are linked to no others,
    or to few at the start, are of the largest run nevertheless, unless they interrupt it or are far out of line.
    """
    _, labels = connected_components(geometry.correlations > RELATED, directed=False)
    sizes = np.bincount(labels)
    main = set(np.flatnonzero(labels == np.argmax(sizes)).tolist())
    others: list[list[int]] = []
    strays: list[Stray] = []
    for label in np.argsort(-sizes)[1:]:
        group = np.flatnonzero(labels == label).tolist()
        inside = [index for index in group if min(main) < index < max(main)]
        interrupting = sum(_interrupts(geometry, sorted(main), index) for index in inside)
        if inside and interrupting >= len(inside) / 2:  # a fast start of both runs may hide that of the first few
            others.append(group)
            strays.append(Stray(tuple(group), "mixed" if len(group) > 1 else "alone"))
    rest = sorted(set(range(len(labels))) - {index for group in others for index in group})
    place = _break(geometry, rest, labels)
    if place is not None:
        strays.append(Stray(tuple(rest[place:]), "after"))
        others.append(rest[place:])
        rest = rest[:place]
    return [rest, *others], strays


def _interrupts(geometry: Geometry, main: Sequence[int], index: int) -> bool:
    """Returns whether the members of a run around a checkpoint are closer to each other than either is to it."""
    place = int(np.searchsorted(main, index))
    before, after = main[place - 1], main[place]
    distances = geometry.distances
    return bool(distances[before, after] < CLOSER * min(distances[before, index], distances[index, after]))


def _break(geometry: Geometry, order: Sequence[int], labels: np.ndarray) -> int | None:
    """Returns where another run begins: unrelated to all before, and much farther than the steps beside it suggest."""
    if len(order) < _LEAST + 1:
        return None
    path = geometry.of(order)
    lengths = np.diag(path.distances, 1)
    gaps = np.diff(path.steps).astype(float)
    for place in range(_LEAST, len(order)):
        if set(labels[order[:place]]) & set(labels[order[place:]]):
            continue
        beside = [other for other in (place - 2, place) if 0 <= other < len(lengths)]
        expected = max(lengths[other] * max(1.0, gaps[place - 1] / gaps[other]) for other in beside)
        if lengths[place - 1] > BREAK * expected:
            return place
    return None


def _ordered(geometry: Geometry, order: list[int]) -> tuple[list[int], list[Move]]:
    """Moves and swaps checkpoints as long as that clearly shortens the path; returns the order and what was moved."""
    moves: list[Move] = []
    while len(order) >= 4 and len(moves) < len(order):
        path = geometry.of(order)
        best = max((*_relocations(path), *_swaps(path)), default=None)
        if best is None:
            break
        _, first, second, swapped = best
        if swapped:
            moves.append(Move((order[first], order[second]), (None, None)))
            order[first], order[second] = order[second], order[first]
            continue
        index = order.pop(first)
        around = (order[second - 1] if second > 0 else None, order[second] if second < len(order) else None)
        if abs(first - second) == 1:
            neighbour = order[first] if second > first else order[second]
            moves.append(Move(tuple(sorted((index, neighbour))), (None, None)))
        else:
            moves.append(Move((index,), around))
        order.insert(second, index)
    return order, moves


_Candidate = tuple[float, int, int, bool]  # what the path becomes shorter by, two places, whether they are swapped


def _relocations(path: Geometry) -> list[_Candidate]:
    """Returns the best other place of each checkpoint where there is one that is clearly better."""
    distances, found = path.distances, []
    for place in range(len(distances)):
        rest = [other for other in range(len(distances)) if other != place]
        left, right = rest[:-1], rest[1:]
        to = distances[place]
        costs = np.concatenate([[2 * to[rest[0]]], to[left] + to[right] - distances[left, right], [2 * to[rest[-1]]]])
        own = costs[place] if 0 < place < len(rest) else costs[place] / 2
        fits = [_fits(path, place, *around) for around in zip([None, *rest], [*rest, None], strict=True)]
        costs[~np.array(fits)] = np.inf
        costs[place] = np.inf
        best = int(np.argmin(costs))
        if costs[best] < BETTER * own:
            found.append((float(own - costs[best]), place, best, False))
    return found


def _fits(path: Geometry, index: int, before: int | None, after: int | None) -> bool:
    """Returns whether a checkpoint belongs between two others at all: it is related to one, and on the way."""
    around = [other for other in (before, after) if other is not None]
    if max(path.correlations[index, other] for other in around) < RELATED:
        return False
    if before is None or after is None:
        return True
    distances = path.distances
    return bool(distances[before, after] >= CLOSER * min(distances[before, index], distances[index, after]))


def _swaps(path: Geometry) -> list[_Candidate]:
    """Returns the pairs, not beside each other, that each fit clearly better at the other's place."""
    distances, count = path.distances, len(path.distances)
    detours = np.empty((count, count))  # of each place, by the checkpoint that is put there
    detours[0], detours[-1] = 2 * distances[1], 2 * distances[-2]
    detours[1:-1] = distances[:-2] + distances[2:] - np.diag(distances, 2)[:, None]
    own = np.diag(detours).copy()
    own[[0, -1]] /= 2
    old, new = own[:, None] + own[None], detours + detours.T
    better = (new < BETTER * old) & (detours < own[None]) & (own[:, None] > detours.T)
    found = []
    for first, second in np.argwhere(np.triu(better, 2)):
        places = ((first, second), (second, first))
        around = [
            (index, place - 1 if place > 0 else None, place + 1 if place + 1 < count else None)
            for place, index in places
        ]
        if all(_fits(path, *place) for place in around):
            found.append((float(old[first, second] - new[first, second]), int(first), int(second), True))
    return found


def _worst(geometry: Geometry, order: Sequence[int]) -> int | None:
    """Returns the checkpoint whose neighbours are by far closer to each other than to it: the worst, or None."""
    if len(order) < 3:
        return None
    distances = geometry.of(order).distances
    beside = np.diag(distances, 1)
    ratios = np.diag(distances, 2) / np.maximum(np.minimum(beside[:-1], beside[1:]), np.finfo(float).tiny)
    worst = int(np.argmin(ratios))
    return order[worst + 1] if ratios[worst] < CLOSER else None
