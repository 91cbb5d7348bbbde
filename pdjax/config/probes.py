"""Configurations of probes: what is measured on every checkpoint of a trajectory."""

import dataclasses

from pdjax.errors import require


@dataclasses.dataclass(frozen=True)
class MonomialsConfig:
    """Correlations of the predictions with monomials in and off the support (figures 2, 9, 12 and 17)."""

    max_degree: int  # of the monomials; every subset of the support up to this size
    off_support: int  # random monomials off the support, for each degree from 2 on
    num_inputs: int  # fresh inputs behind each expectation
    batch_size: int  # inputs at once, which bounds the memory

    def __post_init__(self):
        for name in ("max_degree", "off_support", "num_inputs", "batch_size"):
            require(getattr(self, name) >= 1, f"monomials.{name} of at least 1", getattr(self, name), "raise it")
        require(
            self.num_inputs % self.batch_size == 0,
            f"monomials.batch_size that divides num_inputs = {self.num_inputs}",
            self.batch_size,
            "every batch counts the same: change one of the two",
        )


@dataclasses.dataclass(frozen=True)
class AttentionConfig:
    """Attention of the last position along two-layer paths to every coordinate (figure 11)."""

    num_inputs: int

    def __post_init__(self):
        require(self.num_inputs >= 1, "attention.num_inputs of at least 1", self.num_inputs, "raise it")


@dataclasses.dataclass(frozen=True)
class ProbesConfig:
    """The probes of an experiment; None leaves one out."""

    seed: int  # of the fresh inputs and of the random monomials
    monomials: MonomialsConfig | None
    attention: AttentionConfig | None
