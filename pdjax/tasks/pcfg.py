"""Tasks on strings of a grammar, sampled fresh at every step.

Masked prediction (section 4.1) for an encoder, and prediction of the next token (appendix E) for a decoder.
"""

import functools
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PRNGKeyArray
from pydantic import Field

from pdjax.errors import UserError, require
from pdjax.settings import Count, settings
from pdjax.tasks.base import Bounds, Task
from pdjax.tasks.derivation import sample_derivations, span_ends
from pdjax.tasks.grammar import Grammar, load_grammar
from pdjax.tasks.masking import mask_tokens
from pdjax.types import Batch

NUM_TERMINALS = 3
BOS, EOS, PAD, MASK = 3, 4, 5, 6  # the ids of the released data; terminals 1, 2, 3 have the ids 0, 1, 2
TOKENS = ("1", "2", "3", "[BOS]", "[EOS]", "[PAD]", "[MASK]")
VOCABULARY = len(TOKENS)


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
    # Positions for which no string is long enough; [BOS] takes one in front.
    behind = length - 1 - trees.terminals.shape[1]
    position = jnp.arange(length)[None]
    valid = position <= trees.length[:, None]
    # Symbols 1, 2, 3 to the ids 0, 1, 2. What is -1 then lies behind the string, and becomes [PAD].
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
            f"length of at least {longest}, [BOS] and the longest string of {grammar.name}",
            f"{length}, which would cut {share:.2g} of all strings",
            "raise it, leave it at None, or choose a root with shorter strings",
        )
    return length


USUAL = 0.95
"""Of all batches, in length and in what is selected each: the others need every position, and take a fifth longer."""


def _usual_most(distribution: Mapping[int, float], count: int) -> int:
    """Returns what the largest of so many draws from a distribution exceeds in 1 - ``USUAL`` of all cases."""
    numbers = np.array(sorted(distribution))
    below = np.cumsum([distribution[number] for number in numbers])
    return int(numbers[np.argmax(below >= USUAL ** (1 / count))])


class GrammarTask(Task):
    """A task on strings of a grammar.

    A sequence is [BOS] and the string's terminals, padded to ``num_positions``. The ``extras`` of batches hold the
    strings' ``tokens`` (before masking), and their ``ancestors`` and ``indices`` ([B, L, depth + 1], see
    ``Derivations``) with a row of zeros for [BOS].
    """

    predicts: ClassVar[Literal["positions", "example"]] = "positions"

    grammar: str
    root: int | None
    length: int | None

    @functools.cached_property
    def rules(self) -> Grammar:
        """The grammar, or its part under ``root``."""
        return load_grammar(self.grammar, self.root)

    @property
    def num_classes(self) -> int:
        """The tokens."""
        return VOCABULARY

    @property
    def vocabulary(self) -> int:
        """Terminals and special tokens."""
        return VOCABULARY

    @property
    def tokens(self) -> tuple[str, ...]:
        """The terminals as the grammar's symbols, and the special tokens."""
        return TOKENS

    @property
    def num_positions(self) -> int:
        """The positions of a sequence: those asked for, or [BOS] and the longest string."""
        return self._positions

    @functools.cached_property
    def _positions(self) -> int:
        return length_for(self.rules, self.length)

    def __post_init__(self):
        self.num_positions  # noqa: B018 (an unknown grammar or a length that cuts strings is refused at once)


@settings
class PcfgTask(GrammarTask):
    """Masked prediction on strings of a probabilistic context-free grammar (definition 4.1).

    ``inputs`` of batches hold ``tokens``, ``valid`` (no padding) and ``selected``, all [B, L]; ``targets`` are the
    original tokens, ``weights`` is 1 at selected positions.
    """

    counted: ClassVar[str] = "selected positions"

    grammar: str = "cfg3b"
    """its name"""
    root: int | None = None
    """a symbol of the grammar; None is the grammar's own root"""
    length: Count | None = None
    """positions, [BOS] included; None is the longest string that can occur"""
    mask_rate: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """the probability that a position is selected"""
    select_bos: bool = False
    """the released code may select [BOS]; the paper's definition has no such token"""

    def probability_of_none(self, count: int) -> float:
        """Returns the probability that no position is selected in so many strings."""
        return sum(p * (1 - self.mask_rate) ** n for n, p in self.rules.length_distribution().items()) ** count

    def bounds(self, count: int) -> Bounds | None:
        """Returns what ``USUAL`` of all batches stay within in length, and as many in what is selected."""
        from scipy.stats import binom  # takes half a second, and who mistyped a flag need not wait

        lengths = self.rules.length_distribution()
        more = 1 if self.select_bos else 0
        most = np.arange(max(lengths) + more + 1)
        selected = np.sum([p * binom.pmf(most, n + more, self.mask_rate) for n, p in lengths.items()], axis=0)
        asked = _usual_most(dict(enumerate(selected.tolist())), count)
        return Bounds(1 + _usual_most(lengths, count), asked)

    def sample(self, key: PRNGKeyArray, batch_size: int) -> Batch:
        """Draws strings and masks them."""
        tree_key, mask_key = jax.random.split(key)
        strings = sample_strings(self.rules, self.num_positions, tree_key, batch_size)
        selectable = strings.valid if self.select_bos else strings.terminal
        masked = mask_tokens(mask_key, strings.tokens, selectable, self.mask_rate, MASK, NUM_TERMINALS)
        return Batch(
            inputs={"tokens": masked.tokens, "valid": strings.valid, "selected": masked.selected},
            targets=strings.tokens,
            weights=masked.selected.astype(jnp.float32),
            extras=strings.extras,
        )


@settings
class PcfgLanguageTask(GrammarTask):
    """Prediction of the next token on strings of a probabilistic context-free grammar (appendix E).

    ``inputs`` of batches hold ``tokens`` and ``valid`` (no padding), both [B, L]; ``targets`` are the tokens one
    position later, [PAD] behind the last one. ``weights`` is 1 where that token counts. Nothing follows the string's
    end: there is no end token.
    """

    counted: ClassVar[str] = "counted tokens"

    grammar: str = "cfg3b"
    """its name"""
    root: int | None = None
    """a symbol of the grammar; None is the grammar's own root"""
    length: Count | None = None
    """positions, [BOS] included; None is the longest string that can occur"""
    level: Count = 1
    """l of C^(l), the tokens that count, from the bottom: 1 takes every token, 2 those that end a symbol just above the
    terminals, 3 those that end a symbol above these, and so on"""

    def __post_init__(self):
        super().__post_init__()
        # The root is no level to predict at: its only boundary is the string's end.
        require(
            self.level <= self.rules.depth,
            f"level from 1 to {self.rules.depth}, the depth of {self.grammar} below {self.rules.root}",
            self.level,
            "lower it, or choose a root farther from the terminals",
        )

    def bounds(self, count: int) -> Bounds | None:
        """Returns what ``USUAL`` of all batches of so many strings stay within."""
        length = 1 + _usual_most(self.rules.length_distribution(), count)
        return Bounds(length, None) if length < self.num_positions else None

    def sample(self, key: PRNGKeyArray, batch_size: int) -> Batch:
        """Draws strings."""
        strings = sample_strings(self.rules, self.num_positions, key, batch_size)
        # C^(l) counts levels from the terminals up, `span_ends` from the root down.
        depth = self.rules.depth - (self.level - 1)
        counted = span_ends(strings.indices, strings.terminal)[..., depth]
        # Position i is asked for token i + 1, so what counts moves one to the left, too; the last position is asked for
        # nothing.
        following = ((0, 0), (0, 1))
        return Batch(
            inputs={"tokens": strings.tokens, "valid": strings.valid},
            targets=jnp.pad(strings.tokens[:, 1:], following, constant_values=PAD),
            weights=jnp.pad(counted[:, 1:], following).astype(jnp.float32),
            extras=strings.extras,
        )
