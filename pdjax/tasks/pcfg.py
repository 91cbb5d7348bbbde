"""Tasks on strings of a grammar, sampled fresh at every step.

Masked prediction (section 4.1) for an encoder, and prediction of the next token (appendix E) for a decoder.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from pdjax.config import PcfgLanguageTaskConfig, PcfgTaskConfig
from pdjax.errors import UserError, require
from pdjax.tasks.derivation import sample_derivations, span_ends
from pdjax.tasks.grammar import Grammar, load_grammar
from pdjax.tasks.masking import mask_tokens
from pdjax.types import Batch

NUM_TERMINALS = 3
BOS, EOS, PAD, MASK = 3, 4, 5, 6  # the ids of the released data; terminals 1, 2, 3 have the ids 0, 1, 2
VOCABULARY = 7


class Strings(NamedTuple):
    """[BOS] and the terminals of strings, with padding behind, and the trees above them.

    ``ancestors`` and ``indices`` are those of ``Derivations``, with a row of zeros for [BOS].
    """

    tokens: Int[Array, "B L"]
    valid: Bool[Array, "B L"]  # no padding
    terminal: Bool[Array, "B L"]  # neither padding nor [BOS]
    ancestors: Int[Array, "B L depth"]
    indices: Int[Array, "B L depth"]

    @property
    def extras(self) -> dict[str, Array]:
        """What probes need."""
        return {"tokens": self.tokens, "ancestors": self.ancestors, "indices": self.indices}


def sample_strings(grammar: Grammar, length: int, key: PRNGKeyArray, batch_size: int) -> Strings:
    """Draws strings of a grammar as sequences of ``length`` positions, which hold the longest one and [BOS]."""
    trees = sample_derivations(grammar, key, batch_size)
    behind = length - 1 - trees.terminals.shape[1]
    position = jnp.arange(length)[None]
    valid = position <= trees.length[:, None]
    terminals = jnp.pad(trees.terminals - 1, ((0, 0), (1, behind)))
    around = ((0, 0), (1, behind), (0, 0))
    return Strings(
        tokens=jnp.where(valid, terminals, PAD).at[:, 0].set(BOS),
        valid=valid,
        terminal=valid & (position > 0),
        ancestors=jnp.pad(trees.ancestors, around),
        indices=jnp.pad(trees.indices, around),
    )


def length_for(grammar: Grammar, length: int | None) -> int:
    """Returns the positions of a sequence: those asked for, or [BOS] and the longest string.

    Raises:
      UserError: strings would be cut.
    """
    longest = grammar.most_symbols()[-1] + 1
    length = longest if length is None else length
    if length < longest:
        share = sum(p for terminals, p in grammar.length_distribution().items() if terminals + 1 > length)
        raise UserError(
            f"task.length of at least {longest}, [BOS] and the longest string of {grammar.name}",
            f"{length}, which would cut {share:.2g} of all strings",
            "raise it, leave it at None, or choose a root with shorter strings",
        )
    return length


class PcfgTask:
    """Batches of masked strings.

    A sequence is [BOS] and the string's terminals, padded to ``length``. ``inputs`` holds ``tokens``,
    ``valid`` (no padding) and ``selected``, all [B, L]; ``targets`` are the original tokens, ``weights`` is 1
    at selected positions. ``extras`` holds ``tokens`` before masking, and ``ancestors`` and ``indices``
    ([B, L, depth + 1], see ``Derivations``) with a row of zeros for [BOS].
    """

    predicts: Literal["positions", "example"] = "positions"

    def __init__(self, config: PcfgTaskConfig):
        self.config = config
        self.grammar = load_grammar(config.grammar, config.root)
        self.num_classes = self.vocabulary = VOCABULARY
        self.length = length_for(self.grammar, config.length)

    def sample(self, key: PRNGKeyArray, batch_size: int) -> Batch:
        """Draws strings and masks them."""
        tree_key, mask_key = jax.random.split(key)
        strings = sample_strings(self.grammar, self.length, tree_key, batch_size)
        selectable = strings.valid if self.config.select_bos else strings.terminal
        masked = mask_tokens(mask_key, strings.tokens, selectable, self.config.mask_rate, MASK, NUM_TERMINALS)
        return Batch(
            inputs={"tokens": masked.tokens, "valid": strings.valid, "selected": masked.selected},
            targets=strings.tokens,
            weights=masked.selected.astype(jnp.float32),
            extras=strings.extras,
        )


class PcfgLanguageTask:
    """Batches of strings whose next tokens are predicted (appendix E).

    A sequence is [BOS] and the string's terminals, padded to ``length``. ``inputs`` holds ``tokens`` and ``valid``
    (no padding), both [B, L]; ``targets`` are the tokens one position later, [PAD] behind the last one. ``weights``
    is 1 where that token counts: a terminal of C^(level), the rightmost ones under the symbols ``level - 1`` above
    the terminals, hence all of them at level 1. Nothing follows the string's end: there is no end token. ``extras``
    are those of ``PcfgTask``.
    """

    predicts: Literal["positions", "example"] = "positions"

    def __init__(self, config: PcfgLanguageTaskConfig):
        self.config = config
        self.grammar = load_grammar(config.grammar, config.root)
        self.num_classes = self.vocabulary = VOCABULARY
        self.length = length_for(self.grammar, config.length)
        # The root is no level to predict at: its only boundary is the string's end.
        require(
            config.level <= self.grammar.depth,
            f"task.level from 1 to {self.grammar.depth}, the depth of {config.grammar} below {self.grammar.root}",
            config.level,
            "lower it, or choose a root farther from the terminals",
        )

    def sample(self, key: PRNGKeyArray, batch_size: int) -> Batch:
        """Draws strings."""
        strings = sample_strings(self.grammar, self.length, key, batch_size)
        depth = self.grammar.depth - (self.config.level - 1)
        counted = span_ends(strings.indices, strings.terminal)[..., depth]
        following = ((0, 0), (0, 1))
        return Batch(
            inputs={"tokens": strings.tokens, "valid": strings.valid},
            targets=jnp.pad(strings.tokens[:, 1:], following, constant_values=PAD),
            weights=jnp.pad(counted[:, 1:], following).astype(jnp.float32),
            extras=strings.extras,
        )
