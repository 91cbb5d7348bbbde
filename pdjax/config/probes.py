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
class NgramsConfig:
    """Dependence of the predictions on the tokens near a position (equations 5, 6, 11 and 12, figures 4, 5 and 22)."""

    n: tuple[int, ...]  # sizes of the n-grams
    num_sentences: int
    num_positions: int  # of each sentence
    percentiles: tuple[int, ...]  # over sentences and positions; the median, 50, is what the paper reports
    batch_size: int  # contexts at once, of 1 + 2 for each n at every place, which bounds the memory

    def __post_init__(self):
        require(len(self.n) > 0 and min(self.n) >= 2, "ngrams.n of at least 2", self.n, "n = 1 is the position alone")
        for name in ("num_sentences", "num_positions", "batch_size"):
            require(getattr(self, name) >= 1, f"ngrams.{name} of at least 1", getattr(self, name), "raise it")
        require(
            50 in self.percentiles and min(self.percentiles) >= 0 and max(self.percentiles) <= 100,
            "ngrams.percentiles between 0 and 100, 50 among them",
            self.percentiles,
            "give percentages, with the median",
        )


@dataclasses.dataclass(frozen=True)
class NonterminalsConfig:
    """Probes that tell non-terminals from hidden states (section D.3, figure 5 right)."""

    num_heads: int  # of the probe's attention
    num_train: int  # strings that it is trained on
    num_test: int
    batch_size: int
    learning_rate: float  # of Adam

    def __post_init__(self):
        for name in ("num_heads", "num_train", "num_test", "batch_size"):
            require(getattr(self, name) >= 1, f"nonterminals.{name} of at least 1", getattr(self, name), "raise it")
        for name in ("num_train", "num_test"):
            require(
                getattr(self, name) % self.batch_size == 0,
                f"nonterminals.batch_size that divides {name} = {getattr(self, name)}",
                self.batch_size,
                "every batch counts the same: change one of the two",
            )
        require(self.learning_rate > 0, "a positive nonterminals.learning_rate", self.learning_rate, "raise it")


@dataclasses.dataclass(frozen=True)
class AgreementConfig:
    """Agreement of students with their teacher on held-out inputs."""

    num_batches: int
    batch_size: int

    def __post_init__(self):
        for name in ("num_batches", "batch_size"):
            require(getattr(self, name) >= 1, f"agreement.{name} of at least 1", getattr(self, name), "raise it")


@dataclasses.dataclass(frozen=True)
class ProbesConfig:
    """The probes of an experiment; None leaves one out."""

    seed: int  # of the fresh inputs and of the random monomials
    monomials: MonomialsConfig | None
    attention: AttentionConfig | None
    ngrams: NgramsConfig | None
    nonterminals: NonterminalsConfig | None
    agreement: AgreementConfig | None  # with the final teacher
    students: tuple[str, ...]  # strategies whose students are probed as well, at all of their checkpoints
    longest_alone: bool  # whether the students of the longest budget alone are probed

    @property
    def measured(self) -> tuple[str, ...]:
        """The names of the probes that are not left out."""
        fields = (field.name for field in dataclasses.fields(self))
        return tuple(name for name in fields if dataclasses.is_dataclass(getattr(self, name)))
