"""Configurations of tasks."""

import dataclasses
from typing import Literal

from pdjax.errors import require


@dataclasses.dataclass(frozen=True)
class PcfgTaskConfig:
    """Masked prediction on strings of a probabilistic context-free grammar (definition 4.1)."""

    kind: Literal["pcfg"]
    grammar: str
    root: int | None  # a symbol of the grammar; None is the grammar's own root
    length: int | None  # positions, [BOS] included; None is the longest string that can occur
    mask_rate: float  # probability that a position is selected
    select_bos: bool  # the released code may select [BOS]; the paper's definition has no such token

    def __post_init__(self):
        require(0 < self.mask_rate < 1, "task.mask_rate between 0 and 1", self.mask_rate, "give a probability")


@dataclasses.dataclass(frozen=True)
class PcfgLanguageTaskConfig:
    """Prediction of the next token on strings of a probabilistic context-free grammar (appendix E)."""

    kind: Literal["pcfg_language"]
    grammar: str
    root: int | None  # a symbol of the grammar; None is the grammar's own root
    length: int | None  # positions, [BOS] included; None is the longest string that can occur
    # l of C^(l), the tokens that count, from the bottom: 1 takes every token, 2 those that end a symbol just above the
    # terminals, 3 those that end a symbol above these, and so on
    level: int

    def __post_init__(self):
        require(self.level >= 1, "task.level of at least 1", self.level, "level 1 counts every token")


@dataclasses.dataclass(frozen=True)
class ParityTaskConfig:
    """Sparse parity (definition 3.1): the class is the sign of the product of ``degree`` coordinates."""

    kind: Literal["parity"]
    dimension: int  # d, coordinates of an input
    degree: int  # k, coordinates in the support
    support: Literal["first", "random"]  # the first k coordinates, or k drawn without replacement
    support_seed: int  # of the random support

    def __post_init__(self):
        require(self.degree >= 1, "task.degree of at least 1", self.degree, "raise it")
        require(
            self.degree <= self.dimension,
            f"task.degree of at most task.dimension = {self.dimension}",
            self.degree,
            "the support is a set of coordinates: lower the degree or raise the dimension",
        )


@dataclasses.dataclass(frozen=True)
class HierarchicalTaskConfig:
    """Hierarchical parity (section C.3): a binary tree of sparse parities on disjoint coordinates."""

    kind: Literal["hierarchical"]
    dimension: int  # d, coordinates of an input
    degree: int  # k, coordinates of each node's feature
    depth: int  # D, levels of the tree; it has 2**D leaves, the classes
    support: Literal["first", "random"]  # node j owns coordinates [(j - 1) k, j k), or a random permutation does
    support_seed: int  # of the random permutation

    def __post_init__(self):
        require(self.depth >= 1, "task.depth of at least 1", self.depth, "a tree without a node has no classes")
        require(self.degree >= 1, "task.degree of at least 1", self.degree, "raise it")
        nodes = 2**self.depth - 1
        require(
            nodes * self.degree <= self.dimension,
            f"task.dimension of at least {nodes * self.degree}, {nodes} features of {self.degree} coordinates "
            "that do not overlap",
            self.dimension,
            "lower the depth or the degree, or raise the dimension",
        )


TaskConfig = PcfgTaskConfig | PcfgLanguageTaskConfig | ParityTaskConfig | HierarchicalTaskConfig
