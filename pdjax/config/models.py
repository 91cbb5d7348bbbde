"""Configurations of models."""

import dataclasses
from typing import Literal

from pdjax.errors import require

Compute = Literal["float32", "tf32", "bfloat16"]
"""The type in which a model computes; its parameters are kept and updated in float32 always.

``float32``: activations and products. ``tf32``: activations are float32, products have operands of 10 bits of mantissa
on GPUs and of three bfloat16 passes on TPUs. ``bfloat16``: activations and operands are rounded to it, sums are
float32.
"""


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """A BERT encoder with a masked-language-model head (section D.5)."""

    kind: Literal["bert"]
    num_layers: int
    num_heads: int
    head_dim: int | None  # None: width / num_heads
    width: int | None  # None: num_heads * head_dim
    feed_forward_multiple: int
    dropout: float
    attend_to_selected: bool  # False: selected positions are invisible as keys, as in the released code
    compute: Compute = "float32"

    def __post_init__(self):
        _check_transformer(self, averaged=False)

    @property
    def model_width(self) -> int:
        """The width of the residual stream, D."""
        return self.width if self.width is not None else self.num_heads * (self.head_dim or 0)


@dataclasses.dataclass(frozen=True)
class Gpt2Config:
    """A GPT-2 decoder (sections C.2 and E); for a task of one class per input, the last position decides."""

    kind: Literal["gpt2"]
    num_layers: int
    num_heads: int
    head_dim: int | None  # None: width / num_heads
    width: int | None  # None: num_heads * head_dim
    feed_forward_multiple: int
    dropout: float  # the released code left 0.1 on, during evaluation too
    tied_head: bool  # the output layer is the token embedding; only where classes are tokens
    # concatenate: width = num_heads * head_dim. average: the heads' outputs are averaged before the output
    # projection, so that any number of heads of any size fits a width (figure 10 c)
    heads: Literal["concatenate", "average"]
    compute: Compute = "float32"

    def __post_init__(self):
        _check_transformer(self, averaged=self.heads == "average")

    @property
    def model_width(self) -> int:
        """The width of the residual stream, D."""
        return self.width if self.width is not None else self.num_heads * (self.head_dim or 0)

    @property
    def dimensions_per_head(self) -> int:
        """The dimensions of one head, C."""
        return self.head_dim if self.head_dim is not None else self.model_width // self.num_heads


@dataclasses.dataclass(frozen=True)
class MlpConfig:
    """Linear layers with ReLU between them, weights and biases uniform in +-1/sqrt(fan in) (section C.1)."""

    kind: Literal["mlp"]
    widths: tuple[int, ...]  # of the hidden layers
    compute: Compute = "float32"

    def __post_init__(self):
        require(len(self.widths) > 0, "at least one entry in widths", "none", "an MLP has a hidden layer")
        require(min(self.widths) >= 1, "hidden widths of at least 1", self.widths, "raise them")


ModelConfig = BertConfig | Gpt2Config | MlpConfig


def _check_transformer(config: BertConfig | Gpt2Config, averaged: bool) -> None:
    """Requires sizes that fit together."""
    for name in ("num_layers", "num_heads", "feed_forward_multiple"):
        require(getattr(config, name) >= 1, f"{name} of at least 1", getattr(config, name), "raise it")
    require(0 <= config.dropout < 1, "dropout in [0, 1)", config.dropout, "give a probability")
    if averaged:
        require(
            config.head_dim is not None and config.width is not None and min(config.head_dim, config.width) >= 1,
            "positive head_dim and width with averaged heads",
            f"head_dim {config.head_dim}, width {config.width}",
            "set both: neither follows from the other",
        )
        return
    require(
        config.head_dim is not None or config.width is not None,
        "head_dim or width",
        "neither",
        "set one: the width is num_heads * head_dim",
    )
    width = config.model_width
    require(width >= 1, "a width of at least 1", f"width {width}", "raise width or head_dim")
    require(
        width % config.num_heads == 0,
        f"a width that {config.num_heads} heads divide",
        f"width {width}",
        "change width or num_heads",
    )
    head_dim = config.head_dim if config.head_dim is not None else width // config.num_heads
    require(
        width == config.num_heads * head_dim,
        f"width = num_heads * head_dim = {config.num_heads} * {head_dim} = {config.num_heads * head_dim}",
        f"width {width}",
        "change one of the three, or leave head_dim or width at None",
    )
