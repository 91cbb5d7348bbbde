"""Tasks on natural language (section 4.2): masked prediction for an encoder, the next token for a decoder.

The text lies in a corpus that ``python -m pdjax.text`` has prepared once: rows of WordPiece tokens, in each one or more
pieces of documents, ``[CLS] ... [SEP]``. A piece sees none of the others of its row, and its positions begin at 0.
"""

import functools
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray
from pydantic import Field

from pdjax.errors import UserError, require
from pdjax.settings import Aside, ByName, Count, Place, Positive, named, settings
from pdjax.tasks.base import FedTask
from pdjax.tasks.masking import mask_exactly
from pdjax.text.corpus import Corpus, open_corpus
from pdjax.types import Batch, Examples

Token = Annotated[int, Field(ge=0)]


@settings
class Prepared:
    """A prepared corpus, as far as programs depend on it; ``of`` reads it from the directory."""

    directory: Annotated[Place, Aside()]
    digest: str | None = None
    """of its content; None: there is none yet, and programs can be planned but not run"""
    vocabulary: Count = 30522
    length: Count = 512
    """tokens of a row"""
    special: Annotated[tuple[Token, ...], Field(min_length=5, max_length=5)] = (0, 100, 101, 102, 103)
    """of [PAD], [UNK], [CLS], [SEP] and [MASK], which stand for no text"""

    def __post_init__(self):
        require(self.length > 2, "rows longer than [CLS] and [SEP]", self.length, "prepare the corpus with a length")
        require(
            len(set(self.special)) == 5 and max(self.special) < self.vocabulary and self.vocabulary > 5,
            f"five different special tokens below {self.vocabulary}, and others",
            self.special,
            "take them from the vocabulary: Prepared.of(directory)",
        )

    @classmethod
    def of(cls, directory: str) -> "Prepared":
        """Returns what there is in a directory.

        Raises:
          UserError: there is no prepared corpus, or it is damaged.
        """
        return cls._of(directory, open_corpus(directory))

    @classmethod
    def _of(cls, directory: str, corpus: Corpus) -> "Prepared":
        ids = {token: index for index, token in enumerate(corpus.vocabulary)}
        special = tuple(ids[token] for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"))
        return cls(directory, corpus.digest, len(ids), corpus.length, special)

    @property
    def pad(self) -> int:
        """[PAD]."""
        return self.special[0]

    @property
    def first(self) -> int:
        """[CLS], in front of a piece."""
        return self.special[2]

    @property
    def last(self) -> int:
        """[SEP], behind it."""
        return self.special[3]

    @property
    def mask(self) -> int:
        """[MASK]."""
        return self.special[4]

    def open(self) -> Corpus:
        """Opens the corpus.

        Raises:
          UserError: it is not there, damaged, or another one than this.
        """
        if self.digest is None:
            raise UserError(
                f"a prepared corpus in {self.directory}", "none", "prepare it: python -m pdjax.text --help says how"
            )
        corpus, found = _opened(self.directory, self.digest)
        for name in ("digest", "vocabulary", "length", "special"):
            expected, there = getattr(self, name), getattr(found, name)
            remedy = "prepare that one there again, or begin anew with this one in another working directory"
            require(expected == there, f"the corpus in {self.directory} with {name} {expected}", there, remedy)
        return corpus


@functools.lru_cache(maxsize=8)  # opening it verifies its files
def _opened(directory: str, digest: str) -> tuple[Corpus, Prepared]:
    """Returns what there is in a directory; a process that has opened a corpus keeps it."""
    corpus = open_corpus(directory)
    return corpus, Prepared._of(directory, corpus)


@settings
class SourceWeight:
    """How much of the training examples comes from a source."""

    name: str
    weight: Positive


class _Stream(NamedTuple):
    """The corpus as a reader of examples (see ``pdjax.tasks.base.Reader``)."""

    corpus: Corpus
    weights: dict[str, float] | None

    def read(self, stream: str, seed: int, indices: Sequence[int], held_out: bool) -> dict[str, np.ndarray]:
        return self.corpus.read(stream, seed, indices, held_out, None if held_out else self.weights)

    def num_held_out(self) -> int:
        return sum(self.corpus.num_rows(held_out=True).values())


class PreparedTask(FedTask):
    """A task on the rows of a prepared corpus."""

    predicts: ClassVar[Literal["positions", "example"]] = "positions"

    corpus: Prepared
    weights: tuple[SourceWeight, ...]

    @property
    def num_classes(self) -> int:
        """The tokens."""
        return self.corpus.vocabulary

    @property
    def vocabulary(self) -> int:
        """The tokens."""
        return self.corpus.vocabulary

    @property
    def tokens(self) -> tuple[str, ...] | None:
        """The tokens of the vocabulary; None where the corpus is not there yet."""
        return None if self.corpus.digest is None else self.corpus.open().vocabulary

    @property
    def num_positions(self) -> int:
        """The tokens of a row."""
        return self.corpus.length

    @property
    def example(self) -> dict[str, jax.ShapeDtypeStruct]:
        """A row: its ``tokens``, and the ``segments`` they belong to (0 is padding)."""
        small = np.uint16 if self.corpus.vocabulary <= 2**16 else np.uint32
        row = (self.corpus.length,)
        return {"tokens": jax.ShapeDtypeStruct(row, small), "segments": jax.ShapeDtypeStruct(row, np.uint8)}

    def open(self) -> _Stream:
        """Opens the corpus."""
        corpus = self.corpus.open()
        weights = {name: source.weight for name, source in named(self.weights).items()} or None
        corpus.check_weights(weights)
        return _Stream(corpus, weights)


@settings
class TextTask(PreparedTask):
    """Masked prediction of text, as BERT is trained (section 4.2).

    ``inputs`` of batches hold ``tokens`` (masked), ``valid`` (no padding), ``selected``, ``segments`` and
    ``positions``, all [B, L], and the positions ``asked`` [B, Q]; ``targets`` are the tokens there, and ``weights`` is
    1 where a sequence has so many selected ones. ``extras`` holds the ``tokens`` before masking.
    """

    counted: ClassVar[str] = "selected positions"

    corpus: Prepared
    weights: Annotated[tuple[SourceWeight, ...], ByName()] = ()
    """how much of the training comes from each source, none of those without; () is as much as each has"""
    mask_rate: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """of a sequence's tokens but [CLS] and [SEP], round(rate * tokens) are selected"""
    whole_words: bool = False
    """words are selected together, all of their pieces"""

    def __post_init__(self):
        require(
            round(self.mask_rate * (self.corpus.length - 2)) > 0,
            f"a mask_rate that selects something of {self.corpus.length - 2} tokens",
            self.mask_rate,
            "raise it, or prepare longer rows",
        )

    @functools.cached_property
    def counts(self) -> Int[np.ndarray, "M"]:
        """How many positions are selected of 0, 1, ... ordinary tokens."""
        return np.array([round(self.mask_rate * tokens) for tokens in range(self.corpus.length - 1)], np.int32)

    def batch(self, key: PRNGKeyArray, examples: Examples) -> Batch:
        """Masks rows."""
        of, tokens, segments = self.corpus, *_rows(examples)
        selectable = (segments > 0) & (tokens != of.first) & (tokens != of.last)
        special = sorted(of.special)

        def ordinary(number: Int[Array, "B L"]) -> Int[Array, "B L"]:
            # The special tokens are left out one after the other, from the smallest.
            for token in special:
                number = number + (number >= token)
            return number

        masked = mask_exactly(
            key, tokens, selectable, self._units(tokens), self.counts, of.mask, ordinary, of.vocabulary - len(special)
        )
        inputs = {
            "tokens": masked.tokens,
            "valid": segments > 0,
            "selected": masked.selected,
            "segments": segments,
            "positions": positions_of(segments),
            "asked": masked.asked,
        }
        targets = jnp.take_along_axis(tokens, masked.asked, axis=1)
        return Batch(inputs, targets, masked.counted.astype(jnp.float32), {"tokens": tokens})

    def _units(self, tokens: Int[Array, "B L"]) -> Int[Array, "B L"]:
        """Returns where every token's word begins, or its own position where tokens are masked one by one."""
        here = jnp.broadcast_to(jnp.arange(tokens.shape[1])[None], tokens.shape)
        if not self.whole_words:
            return here
        # Without a corpus, for a plan, of the right shape.
        vocabulary = self.tokens or ("",) * self.corpus.vocabulary
        continues = jnp.array([token.startswith("##") for token in vocabulary])[tokens]
        return jax.lax.cummax(jnp.where(continues, 0, here), axis=1)


@settings
class TextLanguageTask(PreparedTask):
    """Prediction of the next token of text.

    ``inputs`` of batches hold ``tokens``, ``valid`` (no padding), ``segments`` and ``positions``, all [B, L];
    ``targets`` are the tokens one position later, and ``weights`` is 1 where that token is of the same piece.
    """

    counted: ClassVar[str] = "tokens"

    corpus: Prepared
    weights: Annotated[tuple[SourceWeight, ...], ByName()] = ()
    """how much of the training comes from each source, none of those without; () is as much as each has"""

    def batch(self, key: PRNGKeyArray, examples: Examples) -> Batch:
        """Returns rows; nothing is random."""
        tokens, segments = _rows(examples)
        following = ((0, 0), (0, 1))
        same = (segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] > 0)
        return Batch(
            inputs={
                "tokens": tokens,
                "valid": segments > 0,
                "segments": segments,
                "positions": positions_of(segments),
            },
            targets=jnp.pad(tokens[:, 1:], following, constant_values=self.corpus.pad),
            weights=jnp.pad(same, following).astype(jnp.float32),
            extras={"tokens": tokens},
        )


def _rows(examples: Examples) -> tuple[Int[Array, "B L"], Int[Array, "B L"]]:
    """Returns tokens and segments as the integers that one computes with."""
    return examples["tokens"].astype(jnp.int32), examples["segments"].astype(jnp.int32)


def positions_of(segments: Int[Array, "B L"]) -> Int[Array, "B L"]:
    """Returns the position of every token in its piece, from 0 on.

    >>> positions_of(jnp.array([[1, 1, 1, 2, 2, 0]])).tolist()
    [[0, 1, 2, 0, 1, 0]]
    """
    here = jnp.arange(segments.shape[1])[None]
    begins = jnp.pad(segments[:, 1:] != segments[:, :-1], ((0, 0), (1, 0)), constant_values=True)
    return here - jax.lax.cummax(jnp.where(begins, here, 0), axis=1)
