"""What a teacher of strings depends on and knows, by step (figures 4 middle, 22 and 29)."""

from collections.abc import Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pdjax.probes.ngrams import NgramProbe
from pdjax.probes.nonterminals import NonterminalProbe
from pdjax.report import style
from pdjax.report.features import Feature, Measure, teacher_feature
from pdjax.report.figures.drawing import ReportFigure, add_legend, drawn, set_step_axis, shade_phases, step_text
from pdjax.report.results import Results
from pdjax.report.searches import turn_name
from pdjax.tasks.pcfg import PcfgLanguageTask

_PEAK = {"color": "#D55E00", "linestyle": "--", "linewidth": 1.3}
_SYMBOLS: dict[Measure, str] = {"robust": "M_robust", "close": "M_close"}


def string_figures(results: Results) -> list[ReportFigure]:
    """Draws what was measured on the teacher of strings that students learn from."""
    figures, language = [], isinstance(results.experiment.task, PcfgLanguageTask)
    ngrams, nonterminals = (results.experiment.probes[name] for name in ("ngrams", "nonterminals"))
    assert ngrams is None or isinstance(ngrams, NgramProbe)
    assert nonterminals is None or isinstance(nonterminals, NonterminalProbe)
    if teacher_feature(results, "robust") is not None:
        number = "" if ngrams is None else _num_places(ngrams.num_sentences, ngrams.num_positions)
        several = ngrams is not None and len(ngrams.percentiles) > 1
        others = "; other percentiles are in the table ngrams" if several else ""
        peak = f"Dashed: the {turn_name(results)} of M_robust, averaged over n. " if turn_name(results) else ""
        figure = "figure 29 (b, c)" if language else "figures 4 (middle) and 22 (left)"
        caption = (
            "How far the predictions of one teacher depend on n-grams: total variation (0 to 1) between the prediction "
            "with the whole string and without the n-gram around the place (M_robust), or with nothing but the n-gram "
            f"(M_close). Medians over {number}, one line for each n, from small (light) to large "
            f"(dark){others}. {peak}{_phases_sentence(results)}"
            f"Corresponds to {figure} of the paper."
        )
        figures.append(drawn("ngrams", "Dependence of the teacher on n-grams", caption, draw_ngrams, results))
    if teacher_feature(results, "nonterminals") is not None:
        tested = "" if nonterminals is None else f" on {nonterminals.num_test:,} strings"
        caption = (
            "Held-out accuracy of probes that tell the non-terminals of each level from the hidden states of one "
            f"teacher{tested}: a line for each level of the grammar, from the root's children (light) to those next to "
            f"the terminals (dark); the root is level 0. {_phases_sentence(results)}"
            "Corresponds to figure 22 (right) of the paper."
        )
        title = "Non-terminals in the teacher"
        figures.append(drawn("nonterminals", title, caption, draw_nonterminals, results))
    return figures


def _num_places(sentences: int, positions: int) -> str:
    return f"{sentences * positions:,} places ({positions:,} in each of {sentences:,} strings)"


def _phases_sentence(results: Results) -> str:
    shown = results.selection.get("phases")
    return "Shaded: the phases of the teacher's loss, the middle of phase 2 dotted. " if shown else ""


def draw_ngrams(results: Results) -> Figure:
    """Draws the median M_robust above the median M_close by step, a line for each n."""
    figure = Figure(figsize=(style.WIDTH, 5.2), layout="constrained")
    panels = list(figure.subplots(2, 1, sharex=True))
    handles: list[Artist] = []
    for axes, (measure, symbol) in zip(panels, _SYMBOLS.items(), strict=True):
        feature = teacher_feature(results, measure)
        assert feature is not None
        handles = _draw_lines(axes, feature, [f"n = {n}" for n in feature.places])
        axes.set_ylim(bottom=0)
        axes.set_ylabel(f"median {symbol}")
    handles += _mark_peak(results, panels)
    _finish(results, figure, panels, handles)
    return figure


def draw_nonterminals(results: Results) -> Figure:
    """Draws the accuracy of the probes for non-terminals by step, a line for each level."""
    feature = teacher_feature(results, "nonterminals")
    assert feature is not None
    figure = Figure(figsize=(style.WIDTH, 3.6), layout="constrained")
    axes = figure.add_subplot()
    handles = _draw_lines(axes, feature, [f"level {level}" for level in feature.places])
    axes.set_ylabel("accuracy of the probes")
    _finish(results, figure, [axes], handles)
    return figure


def _draw_lines(axes: Axes, feature: Feature, labels: Sequence[str]) -> list[Artist]:
    handles: list[Artist] = []
    for index, (label, color) in enumerate(zip(labels, style.sequential_colors(len(labels)), strict=True)):
        look = {"color": color, "marker": "o", "markersize": 3}
        axes.plot(feature.steps, np.asarray(feature.values[:, 0, index]), **look)
        handles.append(Line2D([], [], label=label, **look))
    axes.margins(x=0.02)
    return handles


def _mark_peak(results: Results, panels: Sequence[Axes]) -> list[Artist]:
    peak = results.selection.get("robust_peak")
    if not peak:
        return []
    for axes in panels:
        axes.axvline(peak["step"], **_PEAK)
    largest = max(axes.get_xlim()[1] for axes in panels)
    return [Line2D([], [], label=f"{turn_name(results)}: step {step_text(peak['step'], largest)}", **_PEAK)]


def _finish(results: Results, figure: Figure, panels: Sequence[Axes], handles: Sequence[Artist]) -> None:
    figure.align_ylabels()
    set_step_axis(panels[-1], "teacher's training steps")
    if results.selection.get("phases"):
        shade_phases(results, panels)
    add_legend(figure, handles)
