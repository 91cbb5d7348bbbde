"""What Transformers have in common: sizes that fit together."""

from pdjax.errors import require
from pdjax.models.base import LinenArchitecture


class Transformer(LinenArchitecture):
    """Settings of a Transformer, ``num_heads * head_dim`` wide unless heads are averaged."""

    num_layers: int
    num_heads: int
    head_dim: int | None
    width: int | None

    averages_heads: bool = False

    @property
    def model_width(self) -> int:
        """The width of the residual stream, D."""
        return self.width if self.width is not None else self.num_heads * (self.head_dim or 0)

    @property
    def dimensions_per_head(self) -> int:
        """The dimensions of one head, C."""
        return self.head_dim if self.head_dim is not None else self.model_width // self.num_heads

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
