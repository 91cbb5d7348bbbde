"""The PCFG task: masked prediction on strings of a grammar (section 4.1), sampled fresh at every step."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from pdjax.config import PcfgTaskConfig
from pdjax.errors import UserError
from pdjax.tasks.derivation import sample_derivations
from pdjax.tasks.grammar import load_grammar
from pdjax.tasks.masking import mask_tokens
from pdjax.types import Batch

NUM_TERMINALS = 3
BOS, EOS, PAD, MASK = 3, 4, 5, 6  # the ids of the released data; terminals 1, 2, 3 have the ids 0, 1, 2
VOCABULARY = 7


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
        longest = self.grammar.most_symbols()[-1] + 1
        self.length = longest if config.length is None else config.length
        if self.length < longest:
            lengths = self.grammar.length_distribution()
            share = sum(p for length, p in lengths.items() if length + 1 > self.length)
            raise UserError(
                f"task.length of at least {longest}, [BOS] and the longest string of {config.grammar}",
                f"{self.length}, which would cut {share:.2g} of all strings",
                "raise it, leave it at None, or choose a root with shorter strings",
            )

    def sample(self, key: PRNGKeyArray, batch_size: int) -> Batch:
        """Draws strings and masks them."""
        tree_key, mask_key = jax.random.split(key)
        trees = sample_derivations(self.grammar, tree_key, batch_size)
        behind = self.length - 1 - trees.terminals.shape[1]
        position = jnp.arange(self.length)[None]
        valid = position <= trees.length[:, None]
        strings = jnp.pad(trees.terminals - 1, ((0, 0), (1, behind)))
        tokens = jnp.where(valid, strings, PAD).at[:, 0].set(BOS)
        selectable = valid if self.config.select_bos else valid & (position > 0)
        masked = mask_tokens(mask_key, tokens, selectable, self.config.mask_rate, MASK, NUM_TERMINALS)
        around = ((0, 0), (1, behind), (0, 0))
        return Batch(
            inputs={"tokens": masked.tokens, "valid": valid, "selected": masked.selected},
            targets=tokens,
            weights=masked.selected.astype(jnp.float32),
            extras={
                "tokens": tokens,
                "ancestors": jnp.pad(trees.ancestors, around),
                "indices": jnp.pad(trees.indices, around),
            },
        )
