"""Two Transformers of one layer whose weights compute a sparse parity exactly (section C.2.1).

``attention_selection`` is that of proposition C.1, whose attention finds the support, and ``no_selection`` that of
proposition C.3, whose attention copies everything for the MLP to choose from. Both are weights of the same ``Block``,
which ``apply`` runs. Tokens are those of ``pdjax.tasks.parity``, 0 for +1 and 1 for -1, and the output is the parity
itself, (-1)^m for m ones in the support. The MLPs are those of lemmas C.2 and C.4, ``interpolate_1d`` and
``interpolate``, and ``norms`` says how large their weights are.

The statements need more than they say; what that is stands with each function.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy.spatial.distance import pdist

from pdjax.errors import require
from pdjax.models.precision import with_float32_products

MARGIN = 0.01
"""What ``attention_selection`` adds to the smallest score, so that rounding cannot leave the lemma's interval."""

MOST_READ = 12
"""Up to so many coordinates an MLP of proposition C.3 reads: n of them are 2^n units."""

SIGNS = np.array([1.0, -1.0, -1.0, 1.0])
OFFSETS = np.array([2.0, 1.0, -1.0, -2.0])
"""A bump is ``relu(t + 2) - relu(t + 1) - relu(t - 1) + relu(t - 2)``: 1 for |t| <= 1, 0 for |t| >= 2, else 2 - |t|."""


class Layer(NamedTuple):
    """A dense layer, ``x @ kernel + bias``; the paper's matrices are the kernels' transposes."""

    kernel: Float[Array, "I O"]
    bias: Float[Array, "O"]


Mlp = tuple[Layer, ...]
"""Dense layers, with ReLU behind all but the last."""


class Block(NamedTuple):
    """``f_mlp after f_attn``, without a residual connection or layer norms.

    ``embeddings`` are of a token and its position together, as proposition C.3 needs; those of C.1 are sums of the two.
    """

    embeddings: Float[Array, "V L D"]
    query: Float[Array, "D C"]
    key: Float[Array, "D C"]
    value: Float[Array, "D I"]
    mlp: Mlp


@with_float32_products  # an MLP multiplies what it reads by 4 / gap, and with it the rounding of coarser products
def apply(block: Block, tokens: Int[Array, "B L"]) -> tuple[Float[Array, "B O"], Float[Array, "B L"]]:
    """Returns the output at the last position, and the attention weights of that position.

    The attention is ``softmax(X W_Q W_K' X') X W_V``. It is causal, which leaves all positions to the last one.
    """
    # Rows of X are rows of a table: products with one-hot tokens need no array [B, L, D].
    shown_BxVxL = jax.nn.one_hot(tokens, len(block.embeddings), axis=1)
    query_BxD = block.embeddings[tokens[:, -1], -1] @ block.query @ block.key.T
    scores_BxL = jnp.sum(shown_BxVxL * jnp.einsum("vld,bd->bvl", block.embeddings, query_BxD), axis=1)
    attention_BxL = jax.nn.softmax(scores_BxL)
    x = jnp.einsum("bvl,vld->bd", shown_BxVxL * attention_BxL[:, None], block.embeddings) @ block.value
    *hidden, last = block.mlp
    for layer in hidden:
        x = jax.nn.relu(x @ layer.kernel + layer.bias[None])
    return x @ last.kernel + last.bias[None], attention_BxL


def attention_selection(dimension: int, support: Sequence[int], score: float | None = None) -> Block:
    """Builds the block of proposition C.1: attention selects the support and an MLP of two layers knows its parity.

    The attention of the last position is proportional to ``exp(score)`` in the support and to 1 off it. The MLP then
    reads the share of ones in the support, m / k, and interpolates (-1)^m on these k + 1 points of distance 1 / k.

    As printed, p_d is e_3 or e_4 as any other position, and the query reads e_3 as the key does. Then the last position
    asks for nothing unless it is in the support itself: attention is uniform. Here the query reads e_3 + e_4, so that
    p_d always asks, and the key e_3 alone, so that p_d is attended to in the support only. With the printed factor c of
    both matrices the score is c^2. (The proof writes W_Q at x_i and W_K at x_d; here W_Q is at x_d, as in the block.)

    The bound 4 k (k + 1) holds for each layer of the MLP, for entries, induced norms and biases: the largest bias is
    4 k + 2, the largest norm 4 (k + 1). The product of both layers' induced norms is 16 k (k + 1).

    Args:
      dimension: d, the positions.
      support: positions from 0 on, at least one, none twice.
      score: the proposition's c, at least 0; by default hardly more than ``smallest_score``, above which the output is
        the parity itself.
    """
    _check(dimension, support)
    degree = len(support)
    score = smallest_score(dimension, degree) + MARGIN if score is None else score
    require(score >= 0, "a score of at least 0, the square of what query and key are multiplied by", score, "raise it")
    one, zero, inside, outside = np.eye(4)
    tokens = np.stack([zero, one])
    positions = np.tile(outside, (dimension, 1))
    positions[list(support)] = inside
    nothing = np.zeros(4)
    ones = np.arange(degree + 1)
    return Block(
        jnp.asarray(tokens[:, None] + positions[None]),
        jnp.asarray(math.sqrt(score) * np.stack([inside + outside, nothing], axis=1)),
        jnp.asarray(math.sqrt(score) * np.stack([inside, nothing], axis=1)),
        jnp.asarray(one[:, None]),
        interpolate_1d(ones / degree, (-1.0) ** ones[:, None]),
    )


def smallest_score(dimension: int, degree: int) -> float:
    """Returns the smallest c with which the block of proposition C.1 computes its parity exactly.

    Of the attention, the share ``e = (d - k) / (k exp(c) + d - k)`` is off the support. With m of the k tokens in the
    support ones and q of the d - k others, the MLP reads ``(1 - e) m / k + e q / (d - k)``, which is off by
    ``e (q / (d - k) - m / k)``: by e at most, and by e where one share is 0 and the other is 1. Lemma C.2 tolerates a
    quarter of the distance of its points, 1 / (4 k), and ``e <= 1 / (4 k)`` is

        c >= log((d - k) (4 k - 1) / k),

    which grows with log d: "large constant" means one for each d. Below it the worst inputs get ``2 - 4 k e`` times
    their parity, which is 0 at ``log((d - k) (2 k - 1) / k)``, and below that the parity of their neighbours. Without
    positions off the support every score does.
    """
    return math.log((dimension - degree) * (4 * degree - 1) / degree) if dimension > degree else 0.0


def no_selection(dimension: int, support: Sequence[int], reads: Literal["support", "all"] = "support") -> Block:
    """Builds the block of proposition C.3: attention is uniform and an MLP of three layers finds support and parity.

    *Embeddings are joint.* A token z at position i is z e_i. Where embeddings are sums of a token's and a position's,
    as in C.1, uniform attention gives ``(mean of p_i) + v_0 + (number of ones) (v_1 - v_0) / d``, whatever the vectors:
    inputs with equally many ones are the same to the MLP, and no MLP has the parity of a part of them.

    *The value matrix is d times the identity*, so that the MLP reads the tokens themselves, at distance 1. With the
    identity the distance is 1 / d instead, and the first layer's weights are 4 d, which is more than the 2^(k + 2) of
    the proposition as soon as d > 2^k.

    *The width is not 2^k.* Lemma C.4 has 8 n units in the first layer for n coordinates and 2^n in the second. What
    ignores the other coordinates is the first layer, which reads k (``support``): its 8 k units are more than 2^k for
    k <= 5. Interpolating on whole inputs (``all``) takes 2^d units.

    *The bound 2^(k + 2)* holds for each layer of the MLP that reads the support, for entries, induced norms and biases:
    the largest are 6, 4 k and 2^k, and the product of induced norms is k 2^(k + 4). The MLP that reads everything has
    induced norms of 4 d and 2^d and a bias of d - 1. The value matrix, of norm d, is no part of either.

    Args:
      dimension: d, the positions.
      support: positions from 0 on, at least one, none twice.
      reads: the coordinates that the MLP interpolates on.

    Raises:
      UserError: a bad support, or more than ``MOST_READ`` coordinates to read.
    """
    _check(dimension, support)
    places = {"support": tuple(support), "all": tuple(range(dimension))}
    require(reads in places, f"reads among {list(places)}", repr(reads), "choose one of them")
    read = places[reads]
    require(
        len(read) <= MOST_READ,
        f"at most {MOST_READ} coordinates to read, as n of them take 2^n units",
        f"{len(read)}, reads={reads!r}",
        "read the support alone" if len(support) <= MOST_READ else "lower the degree",
    )
    corners = np.array(list(itertools.product((0, 1), repeat=len(read))))
    ones = corners[:, [read.index(place) for place in support]].sum(axis=1)
    first, *rest = interpolate(corners, (-1.0) ** ones[:, None])
    kernel = np.zeros((dimension, first.kernel.shape[1]))
    kernel[list(read)] = first.kernel
    one = np.eye(dimension)
    unread = jnp.zeros((dimension, 1))  # queries and keys: every score is 0
    return Block(
        jnp.asarray(np.stack([np.zeros_like(one), one])),
        unread,
        unread,
        jnp.asarray(dimension * one),
        (first._replace(kernel=jnp.asarray(kernel)), *rest),
    )


def interpolate_1d(points: Float[np.ndarray, "N"], values: Float[np.ndarray, "N O"]) -> Mlp:
    """Builds the MLP of two layers that has given values at points on a line (lemma C.2).

    ``f(x) = sum over points of value * bump((4 / gap) (x - point))`` with the smallest distance of two points as gap.
    Within a quarter of the gap around a point it is that point's value; from there to half of the gap it falls to 0.
    """
    bumps = _bumps([points], separation(points[:, None]))
    return bumps, Layer(jnp.asarray(np.kron(values, SIGNS[:, None])), jnp.zeros(values.shape[1]))


def interpolate(points: Float[np.ndarray, "N I"], values: Float[np.ndarray, "N O"]) -> Mlp:
    """Builds the MLP of three layers that has given values at points of any dimension (lemma C.4).

    The first layer has a bump for each value of each coordinate. A unit of the second sums those of one point's
    coordinates and subtracts ``dimension - 1``: it is 1 where all coordinates are near that point's. Each may be off by
    a quarter of the gap, the smallest distance of two points in the infinity norm. Two values of one coordinate may be
    nearer than the gap: another coordinate tells the points apart. Where all n coordinates are off by more, the value
    falls to 0 within the n-th part of another quarter.
    """
    coordinates = [np.unique(column) for column in points.T]
    members_XxN = [each[:, None] == column[None] for each, column in zip(coordinates, points.T, strict=True)]
    together = np.kron(np.concatenate(members_XxN), SIGNS[:, None])
    return (
        _bumps(coordinates, separation(points)),
        Layer(jnp.asarray(together), jnp.asarray(np.full(len(points), 1.0 - len(coordinates)))),
        Layer(jnp.asarray(values), jnp.zeros(values.shape[1])),
    )


def separation(points: Float[np.ndarray, "N I"]) -> float:
    """Returns the smallest distance of two points in the infinity norm.

    Raises:
      UserError: there are no two points, or two are the same.
    """
    require(len(points) > 1, "at least two points to interpolate between", len(points), "use a constant for one")
    gap = float(pdist(points, "chebyshev").min())
    require(gap > 0, "points that differ", "two that are the same", "leave one of them out")
    return gap


class Norms(NamedTuple):
    """How large a layer's weights are, beside the bounds of lemmas C.2 and C.4.

    The lemmas leave open which norm of a matrix they mean: the bounds hold for its largest entry.
    """

    entry: float  # largest |weight|
    induced: float  # of the infinity norm: largest sum of |weights| that lead to one unit
    bound: float
    bias: float  # largest |bias|
    bias_bound: float


def norms(mlp: Mlp, points: Float[np.ndarray, "N I"], values: Float[np.ndarray, "N O"]) -> tuple[Norms, ...]:
    """Returns the norms of the layers of an MLP that interpolates (lemmas C.2 and C.4)."""
    gap, largest = separation(points), float(np.abs(values).max())
    middle = [(1.0, float(points.shape[1]))] * (len(mlp) - 2)
    bounds = [(4 / gap, 4 * float(np.abs(points).max()) / gap + 2), *middle, (largest, 0.0)]
    found = []
    for layer, (bound, bias_bound) in zip(mlp, bounds, strict=True):
        weights, biases = np.abs(layer.kernel), np.abs(layer.bias)
        induced = weights.sum(axis=0).max()
        found.append(Norms(float(weights.max()), float(induced), bound, float(biases.max()), bias_bound))
    return tuple(found)


def _bumps(coordinates: Sequence[Float[np.ndarray, "X"]], gap: float) -> Layer:
    """Returns the first layer: four units for each value of each coordinate, one after the other."""
    places = np.repeat(np.arange(len(coordinates)), [len(values) for values in coordinates])
    steepness = 4 / gap
    kernel = np.kron(np.eye(len(coordinates))[:, places], np.full((1, 4), steepness))
    bias = OFFSETS[None] - steepness * np.concatenate(coordinates)[:, None]
    # Rounded at the end: where points are multiples of the gap, as here, kernels and biases are whole numbers.
    return Layer(jnp.asarray(kernel), jnp.asarray(bias.reshape(-1)))


def _check(dimension: int, support: Sequence[int]) -> None:
    """Requires a support: positions of an input, at least one, none twice."""
    require(
        0 < len(set(support)) == len(support) and all(0 <= place < dimension for place in support),
        f"a support of different positions from 0 to {dimension - 1}, at least one",
        tuple(support),
        "name the coordinates whose product is the parity",
    )
