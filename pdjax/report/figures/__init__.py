"""The report's figures: each file has a function from the results to those that there is something to draw for."""

from collections.abc import Callable, Iterator

from pdjax.report.figures.ablations import ablation_figures
from pdjax.report.figures.attention import attention_figures
from pdjax.report.figures.budgets import budget_figures
from pdjax.report.figures.drawing import ReportFigure, of_the_paper
from pdjax.report.figures.features import feature_figures
from pdjax.report.figures.probes import probe_figures
from pdjax.report.figures.scaling import scaling_figures
from pdjax.report.figures.searches import search_figures
from pdjax.report.figures.sizes import size_figures
from pdjax.report.figures.strings import string_figures
from pdjax.report.figures.teacher import teacher_figures
from pdjax.report.figures.theory import theory_figures
from pdjax.report.figures.training import training_figures
from pdjax.report.results import Results

__all__ = ["FIGURES", "ReportFigure", "all_figures"]

FIGURES: tuple[Callable[[Results], Iterator[ReportFigure]], ...] = (
    budget_figures,
    training_figures,
    teacher_figures,
    string_figures,
    probe_figures,
    attention_figures,
    search_figures,
    feature_figures,
    size_figures,
    ablation_figures,
    theory_figures,
    scaling_figures,
)


def all_figures(results: Results) -> list[ReportFigure]:
    """Draws every figure that there are results for; captions name the figures of the paper that they correspond to."""
    paper = results.experiment.report.paper_figures
    figures = []
    for figure in (figure for figures_of in FIGURES for figure in figures_of(results)):
        key = max((key for key in paper if figure.name.startswith(key)), key=len, default=None)
        sentence = "" if key is None else of_the_paper(paper[key])
        figures.append(figure._replace(caption=figure.caption + sentence))
    return figures
