"""Variants beside each other: final accuracy with relative gaps, and sizes (figures 26 to 28, 30 to 32)."""

import textwrap
from collections.abc import Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from pdjax.report.figures.bars import Bar, draw_bars
from pdjax.report.figures.drawing import (
    SMALL,
    ReportFigure,
    accuracy_label,
    add_legend,
    by_rate,
    count_seeds,
    drawn,
    grid,
    looks,
    of_the_paper,
    shown,
)
from pdjax.report.figures.sizes import SizePanel, draw_size_panels, size_caption
from pdjax.report.groups import Group
from pdjax.report.results import Results
from pdjax.report.variants import Variant, group_in, relative_gap, strategies_by_kind, variants_of

_LETTERS = 84  # of the names of all variants beside each other


def ablation_figures(results: Results) -> list[ReportFigure]:
    """Draws every ablation of which anything is finished, for every learning rate."""
    figures = []
    for key, ablation in results.asked_ablations.items():
        for rate, suffix, title_suffix in by_rate(results):
            groups = [group for budget in ablation.budgets for group in _groups(results, key, rate, budget)]
            if groups:
                caption = _caption(results, key, groups)
                title = f"{ablation.title}{title_suffix}"
                figures.append(drawn(f"ablation_{key}{suffix}", title, caption, draw_ablation, results, key, rate))
        panels = size_panels(results, key)
        if panels:
            title, name = f"{ablation.title}: model sizes", f"ablation_{key}_sizes"
            figures.append(drawn(name, title, size_caption(panels, ablation.figure), draw_size_panels, panels))
    return figures


def _caption(results: Results, key: str, groups: Sequence[Group]) -> str:
    ablation = results.asked_ablations[key]
    progressive, one_shot = strategies_by_kind(results, ablation.strategies)
    several = "the better of the one-shot strategies (by its mean)" if len(one_shot) > 1 else "one-shot distillation"
    gaps = (
        f" Above progressive strategies: how much more accurate they are than {several}, relative to it."
        if progressive and one_shot
        else ""
    )
    base = f" {ablation.base} is the experiment itself." if ablation.base is not None else ""
    return (
        f"Final held-out accuracy in each variant: means over {count_seeds(groups)} with 95% Student t confidence "
        f"intervals, single seeds as points.{gaps} The axes do not begin at 0.{base} What is not finished is left out."
        f"{of_the_paper(ablation.figure)}"
    )


def _groups(results: Results, key: str, rate: float, budget: int) -> list[Group]:
    """Returns all finished groups of an ablation with a budget."""
    keys, variants = results.asked_ablations[key].strategies, variants_of(results, key)
    groups = [group_in(results, variant, strategy, rate, budget) for variant in variants for strategy in keys]
    return [group for group in groups if group is not None]


def draw_ablation(results: Results, key: str, rate: float) -> Figure:
    """Draws for each budget a panel of bars, grouped by variant, a bar for each strategy."""
    ablation = results.asked_ablations[key]
    budgets = [budget for budget in sorted(ablation.budgets) if _groups(results, key, rate, budget)]
    figure, panels = grid(len(budgets), columns=1, height=2.7)
    for axes, budget in zip(panels, budgets, strict=True):
        _draw_panel(results, axes, key, rate, budget)
        axes.set_title(f"{budget:,} steps", fontsize=10)
        axes.set_ylabel(accuracy_label(results, "final held-out accuracy"), fontsize=SMALL)
    handles: list[Artist] = [
        Patch(color=looks(results)[strategy].color, label=shown(results.labels[strategy]))
        for strategy in ablation.strategies
    ]
    add_legend(figure, handles)
    return figure


def _draw_panel(results: Results, axes: Axes, key: str, rate: float, budget: int) -> None:
    strategies = results.asked_ablations[key].strategies
    names, bars = [], []
    for variant in variants_of(results, key):
        groups = {strategy: group_in(results, variant, strategy, rate, budget) for strategy in strategies}
        if any(group is not None for group in groups.values()):
            names.append(variant.name)
            bars.append([_bar(results, groups, strategy) for strategy in strategies])
    draw_bars(axes, bars)
    width = max(_LETTERS // len(names), 6)
    axes.set_xticks(range(len(names)), [textwrap.fill(name, width) for name in names], fontsize=SMALL)


def _bar(results: Results, groups: dict[str, Group | None], strategy: str) -> Bar | None:
    group = groups[strategy]
    if group is None:
        return None
    gap = relative_gap(results, groups, strategy)
    text = "" if gap is None else f"{100 * gap:+.1f}%".replace("-", "−")
    return Bar(group.final_accuracy, looks(results)[strategy].color, text)


def size_panels(results: Results, key: str) -> list[SizePanel]:
    """Returns the evaluated panels of sizes of an ablation's variants; none where it trains no sizes."""
    if not results.asked_ablations[key].sizes:
        return []
    panels = []
    for variant in variants_of(results, key):
        if variant.results is not None:
            evaluated = list(dict.fromkeys(panel for panel, _, _ in variant.results.size_groups))
            panels += [
                SizePanel(_panel_title(variant, panel, evaluated), variant.results, panel) for panel in evaluated
            ]
    return panels


def _panel_title(variant: Variant, panel: str, panels: Sequence[str]) -> str:
    return variant.name if len(panels) == 1 else f"{variant.name}: {panel}"
