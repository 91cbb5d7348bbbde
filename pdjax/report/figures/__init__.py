"""The report's figures, drawn with matplotlib's objects; each comes with its caption."""

from pdjax.report.figures.ablations import ablation_figures, draw_ablation
from pdjax.report.figures.attention import attention_figures, draw_attention
from pdjax.report.figures.drawing import ReportFigure, looks
from pdjax.report.figures.features import draw_features, draw_features_over_training, feature_figures
from pdjax.report.figures.probes import draw_correlations, draw_levels, draw_teacher_seeds, probe_figures
from pdjax.report.figures.searches import draw_search, search_figures
from pdjax.report.figures.sizes import draw_sizes, size_figures
from pdjax.report.figures.strings import draw_ngrams, draw_nonterminals, string_figures
from pdjax.report.figures.students import draw_budgets, draw_training, student_figures
from pdjax.report.figures.teacher import draw_teacher, teacher_figures
from pdjax.report.results import Results

__all__ = [
    "ReportFigure",
    "all_figures",
    "draw_ablation",
    "draw_attention",
    "draw_budgets",
    "draw_correlations",
    "draw_features",
    "draw_features_over_training",
    "draw_levels",
    "draw_ngrams",
    "draw_nonterminals",
    "draw_search",
    "draw_sizes",
    "draw_teacher",
    "draw_teacher_seeds",
    "draw_training",
    "looks",
]


def all_figures(results: Results) -> list[ReportFigure]:
    """Draws every figure that there are results for."""
    groups = (
        teacher_figures,
        string_figures,
        probe_figures,
        attention_figures,
        student_figures,
        search_figures,
        feature_figures,
        size_figures,
        ablation_figures,
    )
    return [figure for group in groups for figure in group(results)]
