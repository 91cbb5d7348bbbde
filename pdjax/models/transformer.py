"""What Transformers have in common: sizes that fit together."""

from typing import ClassVar

from pdjax.errors import require
from pdjax.models.base import LinenArchitecture
from pdjax.models.layers import Activation
from pdjax.tasks.base import Task


class Transformer(LinenArchitecture):
    """Settings of a Transformer, ``num_heads * head_dim`` wide unless heads are averaged."""

    num_layers: int
    num_heads: int
    head_dim: int | None
    width: int | None
    feed_forward_multiple: int
    dropout: float
    activation: Activation
    epsilon: float
    tied_head: bool
    vocabulary_rows: int | None
    vocabulary_block: int | None

    scan_layers: bool = False
    rematerialize: bool = False
    averages_heads: bool = False

    @property
    def model_width(self) -> int:
        """The width of the residual stream, D."""
        return self.width if self.width is not None else self.num_heads * (self.head_dim or 0)

    @property
    def dimensions_per_head(self) -> int:
        """The dimensions of one head, C."""
        return self.head_dim if self.head_dim is not None else self.model_width // self.num_heads

    answers_asked: ClassVar[bool] = False
    """Whether its module answers at the ``asked`` positions of its inputs, and is the same without padding."""

    @property
    def can_be_narrow(self) -> bool:
        """Whether it answers where it is asked, and drops nothing: other shapes would drop other parts."""
        return self.answers_asked and self.dropout == 0

    def rows(self, tokens: int) -> int:
        """Returns the rows of the token embedding, and of an output layer whose classes are tokens."""
        return tokens if self.vocabulary_rows is None else self.vocabulary_rows

    def check(self, task: Task) -> None:
        """Raises a ``UserError`` for a head that cannot be tied, and for rows that are no tokens' or too few."""
        super().check(task)
        classes_are_tokens = task.num_classes == task.vocabulary
        require(
            not self.tied_head or classes_are_tokens,
            f"tied_head only where the classes are as many as the tokens, {task.vocabulary}",
            f"the {task.num_classes} classes of {type(task).__name__}",
            "set tied_head to False",
        )
        require(
            self.vocabulary_rows is None or (classes_are_tokens and self.vocabulary_rows >= task.vocabulary),
            f"vocabulary_rows of at least the {task.vocabulary} tokens, and as many classes as tokens",
            f"{self.vocabulary_rows} rows for the {task.num_classes} classes of {type(task).__name__}",
            "leave vocabulary_rows at None, or choose another task",
        )

    def __post_init__(self):
        if self.averages_heads:
            require(
                self.head_dim is not None and self.width is not None,
                "head_dim and width with averaged heads",
                f"head_dim {self.head_dim}, width {self.width}",
                "set both: neither follows from the other",
            )
            return
        require(
            self.head_dim is not None or self.width is not None,
            "head_dim or width",
            "neither",
            "set one: the width is num_heads * head_dim",
        )
        # From here on one of the two may be None, and follows from the other; if both are given they have to agree.
        width, heads = self.model_width, self.num_heads
        require(
            width % heads == 0,
            f"a width that {heads} heads divide",
            f"width {width}",
            "change width or num_heads",
        )
        head_dim = self.dimensions_per_head
        require(
            width == heads * head_dim,
            f"width = num_heads * head_dim = {heads} * {head_dim} = {heads * head_dim}",
            f"width {width}",
            "change one of the three, or leave head_dim or width at None",
        )
