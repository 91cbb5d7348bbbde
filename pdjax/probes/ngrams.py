"""How far a model's predictions depend on the tokens near a position.

At a position i of a string x, with the n-gram around it from ``i - ceil((n - 1) / 2)`` to ``i + floor((n - 1) / 2)``,
for masked language models (equations 5 and 6, figures 4, 5 and 22):

    M_robust(n) = TV(p(x without i), p(x without its n-gram)),
    M_close(n)  = TV(p(x without i), p(nothing but the n-gram without i)),

where TV is half of the L1 distance between two predictions of the token at i. What is taken away becomes [MASK], and is
hidden to attention where the model hides selected positions. Of text the same, within a piece of a document
(``pdjax.probes.text``).

For next-token models (equations 11 and 12, figure 29), with the n-gram from ``i - n + 1`` to ``i - 1``:

    M_robust(n) = TV(p(x before i), p(x before i without i - n + 1 ... i - 2)),
    M_close(n)  = TV(p(x before i), p(nothing but the n-gram)),

where what is taken away is hidden to attention. [BOS] always stays: the equations are about strings over the
terminals, and [BOS], which is none and says nothing, comes in front of every one of them. Positions are those whose
tokens count in the loss.
"""

import functools
from collections.abc import Callable
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
from pydantic import Field

from pdjax.errors import UserError, require
from pdjax.keys import named_key
from pdjax.models.base import Architecture
from pdjax.models.head import dense
from pdjax.models.replicas import over_replicas
from pdjax.probes.base import Columns, Probe, Record, Rows, Subject, spread
from pdjax.probes.contexts import Distinct, Places, contexts, distinct, draw_places, model_inputs, num_tokens
from pdjax.probes.lengths import at_length, padded_lengths
from pdjax.probes.text import text_distances
from pdjax.settings import Count, settings
from pdjax.tasks.base import Task
from pdjax.tasks.grammar import Grammar
from pdjax.tasks.pcfg import GrammarTask
from pdjax.tasks.text import TextTask
from pdjax.types import Model, Params

MEASURES = ("robust", "close")


@settings
class NgramProbe(Probe):
    """Dependence of the predictions on the tokens near a position (equations 5, 6, 11 and 12, figures 4, 5 and 22)."""

    name: ClassVar[str] = "ngrams"

    n: Annotated[tuple[Annotated[int, Field(ge=2)], ...], Field(min_length=1)] = (2, 3, 4)
    """sizes of the n-grams; 1 would be the position alone"""
    num_sentences: Count = 128
    num_positions: Count = 4
    """of each sentence"""
    percentiles: tuple[Annotated[int, Field(ge=0, le=100)], ...] = (25, 50, 75)
    """over sentences and positions; the median, 50, is what the paper reports"""
    batch_size: Count = 128
    """contexts at once, of 1 + 2 for each n at every place, which bounds the memory"""

    def __post_init__(self):
        # Selections, figures and claims are about the median.
        require(50 in self.percentiles, "percentiles with 50 among them", self.percentiles, "add the median")

    def check(self, task: Task, teacher: Architecture) -> None:
        """Requires strings of a grammar, or masked text."""
        if not isinstance(task, TextTask):
            strings_of(task)

    def num_held_out(self) -> int:
        """Returns the rows of text that take the place of sentences."""
        return self.num_sentences

    def prepare(self, subject: Subject) -> Callable[[Params], Columns]:
        """Returns ``distances`` [R, measures, n, percentiles], the measures being M_robust and M_close."""
        task, model, seed = subject.task, subject.model, jnp.int32(subject.seed)
        if isinstance(task, TextTask):
            # A program's argument, and no constant of it.
            given = (seed, subject.held_out("ngrams", 1, self.num_sentences))
            distances = functools.partial(text_distances, task, model, self.n, self.num_positions, self.batch_size)
        else:
            given, distances = (seed,), functools.partial(ngram_distances, strings_of(task), model, self)
        measure = jax.jit(lambda *arguments: ngram_percentiles(self, distances(*arguments)))
        return lambda params: {"distances": measure(params, *given)}

    def listing(self, task: Task, seed: int) -> dict[str, Any]:
        """Returns ``n`` and ``percentiles``."""
        return {"n": self.n, "percentiles": self.percentiles}

    def measurements(self, record: Record, listing: Record, task: Task) -> Rows:
        """Yields ``M_robust`` and ``M_close`` (total variation, 0 to 1) by ``n`` and ``percentile`` over places."""
        for measure, values in zip(MEASURES, record["distances"], strict=True):
            yield from spread(f"M_{measure}", values, n=listing["n"], percentile=listing["percentiles"])


def strings_of(task: Task) -> GrammarTask:
    """Returns a task that is one of strings of a grammar; a ``UserError`` for others."""
    if not isinstance(task, GrammarTask):
        raise UserError("a task of strings of a grammar", type(task).__name__, "leave probes of strings out")
    return task


def ngram_percentiles(probe: NgramProbe, distances: Float[Array, "R M N P"]) -> Float[Array, "R M N Q"]:
    """Returns the configured percentiles over all places."""
    return jnp.moveaxis(jnp.percentile(distances, jnp.array(probe.percentiles), axis=-1), 0, -1)


NUM_LENGTHS = 6
"""Padded lengths, each of which costs a compilation: contexts of cfg3b under 16 grow by 3.0 % on average, with 4
lengths by 5.3 %, with 8 by 1.9 %."""


def ngram_distances(
    task: GrammarTask, model: Model, probe: NgramProbe, params: Params, seed: Int[Array, ""]
) -> Float[Array, "R M N P"]:
    """Returns M_robust and M_close of R models at once, their parameters stacked, for each n and place.

    Args:
      task: which strings are drawn from. With ``selected`` among its inputs the models are masked language models,
        otherwise they predict the next token.
      model: answers at ``asked`` positions alone.
      probe: how many strings and positions, and which n.
      params: of R models.
      seed: of the strings and positions, the same for every model.
    """
    places, masked = ngram_places(task, probe, seed)
    rows_CxPxL = contexts(places, probe.n, masked)
    num_contexts, num_places, length = rows_CxPxL.shape
    rows_QxL = rows_CxPxL.reshape(-1, length)
    different = distinct(rows_QxL, num_tokens(rows_QxL, masked))
    lengths = padded_lengths(_context_lengths(task.rules, masked), NUM_LENGTHS)
    # Every different context is asked once, for all models; `slot` then spreads the answers over the equal ones.
    p_RxQxV = _predictions(model, params, rows_QxL, different, masked, lengths, probe.batch_size)
    p_RxCxPxV = p_RxQxV[:, different.slot].reshape(-1, num_contexts, num_places, p_RxQxV.shape[-1])
    # Context 0 is the full one, with which all others are compared; the rest are M_robust for each n, then M_close.
    apart_RxCxP = 0.5 * jnp.sum(jnp.abs(p_RxCxPxV[:, 1:] - p_RxCxPxV[:, :1]), axis=-1)
    return apart_RxCxP.reshape(-1, len(MEASURES), len(probe.n), num_places)


def ngram_places(task: GrammarTask, probe: NgramProbe, seed: Int[Array, ""]) -> tuple[Places, bool]:
    """Returns the places that are measured, and whether a masked language model predicts them."""
    string_key, position_key = jax.random.split(named_key(seed, "ngrams"))
    batch = task.sample(string_key, probe.num_sentences)
    masked = "selected" in batch.inputs
    return draw_places(position_key, batch, probe.num_positions, masked), masked


def _predictions(
    model: Model,
    params: Params,
    rows: Int[Array, "Q L"],
    different: Distinct,
    masked: bool,
    lengths: tuple[int, ...],
    batch_size: int,
) -> Float[Array, "R K V"]:
    """Returns what R models predict in each of the different contexts; behind their number stand zeros."""

    def ask(length: int, params: Params, rows: Int[Array, "B L"]) -> Float[Array, "R B V"]:
        inputs = model_inputs(rows, masked, length)
        return over_replicas(lambda params: jax.nn.softmax(dense(model.apply(params, inputs)[0])[:, 0]))(params)

    def block(index: Int[Array, ""], predictions: Float[Array, "R K V"]) -> Float[Array, "R K V"]:
        # The last block repeats the last context. Contexts come shortest first: the last one says what all need.
        chosen = jnp.minimum(index * batch_size + jnp.arange(batch_size), different.total - 1)
        asked = rows[different.row[chosen]]
        answers = at_length(lengths, num_tokens(asked[-1:], masked)[0], ask, params, asked)
        return jax.lax.dynamic_update_slice_in_dim(predictions, answers, index * batch_size, axis=1)

    # Room for the case that all contexts differ: how many do only the data say, and shapes are static.
    replicas, _, classes = jax.eval_shape(lambda: ask(lengths[-1], params, rows[:1])).shape
    zeros = jnp.zeros((replicas, -(-len(rows) // batch_size) * batch_size, classes))
    # No more blocks than there are different contexts.
    return jax.lax.fori_loop(0, -(-different.total // batch_size), block, zeros)


def _context_lengths(grammar: Grammar, masked: bool) -> dict[int, float]:
    """Returns how probable each number of tokens is, [BOS] included, that a model needs at a place."""
    strings = grammar.length_distribution()
    if masked:
        return {length + 1: p for length, p in strings.items()}
    # A place is any of a string's with equal probability. At the i-th terminal a next-token model needs i tokens: [BOS]
    # and those before. Where only some tokens count this is not exact, but it decides about padding alone.
    longest = max(strings)
    return {i: sum(strings.get(length, 0) / length for length in range(i, longest + 1)) for i in range(1, longest + 1)}
