"""Variants beside each other: final accuracy with relative gaps, and sizes (figures 26 to 28, 30 to 32)."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure

from pdjax.experiment import Ablation
from pdjax.report.figures.bars import draw_bars
from pdjax.report.figures.drawing import (
    SMALL,
    Looks,
    ReportFigure,
    accuracy_label,
    by_rate_and_best,
    count_units,
    drawn,
    grid,
    labelled,
    legend_above,
    looks,
    of_the_choice,
    of_the_paper,
    rate_labels,
)
from pdjax.report.figures.sizes import draw_sizes, size_caption, sized
from pdjax.report.groups import Group
from pdjax.report.results import Results
from pdjax.report.variants import group_in, relative_gap, strategies_by_kind, variants_of

_LETTERS = 84  # of the names of all variants beside each other

Bar = tuple[str, str, Group]
"""Variant, text above and students."""


def ablation_figures(results: Results) -> Iterator[ReportFigure]:
    """Draws every ablation of which anything is finished: with the best learning rate of each strategy, and every."""
    for key, ablation in results.asked_ablations.items():
        for rate, suffix, of_rate in by_rate_and_best(results):
            bars = list(_bars(results, ablation, rate))
            groups = [group for _, _, group in bars]
            if groups:
                labels = rate_labels(results, groups) if rate is None else {}
                shown = _table(results, bars, labels), looks(results, labels)
                caption = _caption(results, ablation, groups, of_the_choice(results, rate))
                label, title = accuracy_label(results, "final held-out accuracy"), f"{ablation.title}{of_rate}"
                yield drawn(f"ablation_{key}{suffix}", title, caption, draw_ablation, *shown, label)
        sizes = _sizes(results, ablation)
        if not sizes.empty:
            title, name = f"{ablation.title}: model sizes", f"ablation_{key}_sizes"
            caption = size_caption(results) + of_the_paper(ablation.figure)
            yield drawn(name, title, caption, draw_sizes, sizes, accuracy_label(results))


def _bars(results: Results, ablation: Ablation, rate: float | None) -> Iterator[Bar]:
    """Yields what is finished, by budget, then variant, then strategy."""
    for budget in sorted(ablation.budgets):
        for variant in variants_of(results, ablation.name):
            groups = {key: group_in(results, variant, key, rate, budget) for key in ablation.strategies}
            for key, group in groups.items():
                gap = relative_gap(results, groups, key)
                if group is not None:
                    yield variant.name, "" if gap is None else f"{100 * gap:+.1f}%".replace("-", "−"), group


def _table(results: Results, bars: Sequence[Bar], labels: Mapping[str, str]) -> pd.DataFrame:
    """Returns the students' final accuracy with ``variant`` and ``text``."""
    tables = [labelled(results, [group], labels=labels).assign(variant=name, text=text) for name, text, group in bars]
    table = pd.concat(tables, ignore_index=True)
    return table[table.step == table.budget]


def _sizes(results: Results, ablation: Ablation) -> pd.DataFrame:
    """Returns the sizes of an ablation's variants, with the variant in the name of the panel."""
    tables = []
    for variant in variants_of(results, ablation.name) if ablation.sizes else ():
        if variant.results is not None and not (table := sized(variant.results)).empty:
            several = table.panel.nunique() > 1
            tables.append(table.assign(panel=f"{variant.name}: " + table.panel if several else variant.name))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _caption(results: Results, ablation: Ablation, groups: Sequence[Group], choice: str) -> str:
    progressive, one_shot = strategies_by_kind(results, ablation.strategies)
    several = "the better of the one-shot strategies (by its mean)" if len(one_shot) > 1 else "one-shot distillation"
    gaps = f" Above progressive strategies: how much more accurate they are than {several}, relative to it."
    base = f" {ablation.base} is the experiment itself." if ablation.base is not None else ""
    return (
        f"Final held-out accuracy in each variant: means over {count_units(groups)} with 95% Student t confidence "
        f"intervals, single seeds as points.{gaps if progressive and one_shot else ''} The axes do not begin at 0."
        f"{base}{choice} What is not finished is left out.{of_the_paper(ablation.figure)}"
    )


def draw_ablation(table: pd.DataFrame, looks: Looks, y_label: str) -> Figure:
    """Draws for each budget a panel of bars, grouped by variant, a bar for each strategy."""
    figure, panels = grid(table.budget.nunique(), columns=1, height=2.7)
    palette = {label: looks.palette[label] for label in table.label.unique()}
    for axes, (budget, rows) in zip(panels, table.groupby("budget"), strict=True):
        draw_bars(axes, rows, "variant", palette)
        names = rows.variant.unique()
        width = max(_LETTERS // len(names), 6)
        axes.set_xticks(range(len(names)), [textwrap.fill(name, width) for name in names], fontsize=SMALL)
        axes.set_title(f"{budget:,} steps", fontsize=10)
        axes.set_ylabel(y_label, fontsize=SMALL)
    legend_above(figure)
    return figure
