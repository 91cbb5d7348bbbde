"""Figures and claims that a report shows besides its own: settings that see one table of all results.

Each row of the table is one number that was measured:

================  ====================================================================================================
``role``          ``teacher``, ``student`` or ``size`` (a model of another size, trained from the labels)
``strategy``      the strategy's name; of a size its panel and label, ``panel/label``; of a teacher empty
``seed``          of the model
``learning_rate`` the peak; of a teacher that of its training
``budget``        training steps in all
``step``          training steps when it was measured
``measure``       ``accuracy`` or ``loss`` on the held-out examples
``value``         a fraction; nats per prediction that counts
================  ====================================================================================================
"""

import abc
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pdjax.settings import Choice

if TYPE_CHECKING:  # experiments are made without them, and they take a second to import
    import matplotlib.figure
    import pandas as pd

COLUMNS = ("role", "strategy", "seed", "learning_rate", "budget", "step", "measure", "value")

Verdict = Literal["holds", "fails", "undecided", "not tested"]


class Figure(Choice, abc.ABC):
    """A figure of the report."""

    name: ClassVar[str]
    """Of its files, and in flags."""

    title: ClassVar[str]

    caption: ClassVar[str]
    """What is shown, over how many seeds, and what bands are."""

    @abc.abstractmethod
    def draw(self, table: "pd.DataFrame") -> "matplotlib.figure.Figure | None":
        """Draws what is there so far, in the report's style; None where there is nothing to draw yet."""


class Claim(Choice, abc.ABC):
    """Something that results may show; the report says whether they do."""

    name: ClassVar[str]
    """A short one, in flags too."""

    text: ClassVar[str]
    """What is claimed, as a sentence."""

    rule: ClassVar[str] = (
        "Each case holds if all of its 95% Student t intervals lie above 0, fails if one lies below 0, and is "
        "undecided otherwise."
    )
    """How measurements become a verdict."""

    @abc.abstractmethod
    def measure(self, table: "pd.DataFrame") -> Mapping[str, Mapping[str, Sequence[float]]]:
        """Returns by case the quantities that the claim says are above 0, each with a value for every seed.

        A quantity of fewer than two seeds leaves its case not tested. No cases: the claim is not about this experiment.
        """

    def decide(self, quantities: Mapping[str, Sequence[float]]) -> Verdict | None:
        """Returns the verdict on a case by a rule of the claim's own; None leaves it to the intervals."""
        return None
