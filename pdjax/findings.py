"""What is found of results: figures and claims, which see one table of everything that was measured.

Each row of the table is one number. ``pdjax.report.results`` returns it for one or several working directories, and
a report saves it as ``results.csv`` (and ``results.parquet`` where pyarrow is installed):

=================  ===================================================================================================
``workdir``        where several directories are read together: which one
``variant``        ``<ablation>/<variant>``; empty in the experiment itself, which figures and claims see alone
``role``           ``teacher``, ``student`` or ``size`` (a model of another size, trained from the labels)
``teacher_seed``   of the teacher that students learn from (those of labels have it beside them); of a teacher its own
``strategy``       the strategy's name; of a size its panel and label, ``panel/label``; of a teacher empty
``loss``           what the model learns from, with its numbers
``seed``           of the model
``learning_rate``  the peak
``budget``         training steps in all
``step``           training steps when it was measured
``measure``        ``accuracy`` or ``loss`` on held-out examples, or what a probe calls its own
``value``          a fraction of the predictions that count; nats per such prediction; of probes see ``measurements``
``model``          the run's directory, and the model's place in it: strategies that differ in nothing share models
``complete``       whether its run is
=================  ===================================================================================================

Further columns are those of the probes, empty in rows of others: ``n`` and ``percentile`` of ``M_robust`` and
``M_close``, ``level`` of ``non-terminals``, ``degree``, ``feature`` and ``monomial`` of ``correlation``, ``coordinate``
of ``coefficient``, ``student`` and ``enough`` of ``samples``, and so on.
"""

import abc
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pdjax.settings import Choice

if TYPE_CHECKING:  # experiments are made without them, and they take a second to import
    import matplotlib.figure
    import pandas as pd

COLUMNS = ("role", "teacher_seed", "strategy", "loss", "seed", "learning_rate", "budget", "step", "measure", "value")
COLUMNS += ("model", "complete")
"""Of one experiment without its variants, before those of probes."""

Verdict = Literal["holds", "fails", "too small to matter", "undecided", "not tested"]


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
