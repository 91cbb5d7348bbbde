"""Claim N: what the paper reports of natural language."""

from pdjax.io.selection import SelectionRecord
from pdjax.report.claims.claim import SMALLEST_MARGIN, Absent, Case, Claim, decided, margin_over
from pdjax.report.results import Results
from pdjax.report.text import fraction
from pdjax.tasks.text import PreparedTask


def measure(results: Results) -> list[Case] | Absent:
    """Looks for the three phases and for the peak of M_robust, and compares progressive with one-shot students."""
    if not isinstance(results.experiment.task, PreparedTask):
        return Absent("the task is not about natural language")
    progressive = [key for key in results.compared if results.strategies[key].is_progressive]
    found = results.selection
    shown = [] if found is None else [_phases(results, found), _peak(results, found)]
    return [*shown, *(_case(results, *case) for case in results.cases(progressive))] or Absent("nothing is there yet")


LEAST = 4
"""Measurements of a plateau, a drop behind it and what follows: two ends, and two steps between them."""


def _phases(results: Results, found: SelectionRecord) -> Case:
    name = "three phases of the teacher’s loss"
    if found.phases is not None:
        return Case(name, (), "holds", found.phases.reason)
    curve = results.teacher_curve("loss").sort_values("step").value
    if len(curve) < LEAST:
        return Case(name, (), "not tested", f"{len(curve)} measurements of the loss are too few to have phases")
    ends = f"it falls from {fraction(curve.iloc[0])} to {fraction(curve.iloc[-1])} nats"
    return Case(name, (), "fails", f"the loss has no plateau with a rapid drop behind it at this size: {ends}")


def _peak(results: Results, found: SelectionRecord) -> Case:
    name, peak, phases = "M_robust peaks in the middle phase", found.robust_peak, found.phases
    if len(results.teacher_curve("loss")) < LEAST:
        return Case(name, (), "not tested", "too few checkpoints")
    if peak is None:
        return Case(name, (), "not tested", "M_robust does not rise, or was not measured")
    if not peak.peaked:
        return Case(name, (), "fails", peak.reason)
    if phases is None:
        return Case(name, (), "fails", f"{peak.reason}; there is no middle phase")
    inside = phases.start <= peak.step <= phases.end
    where = f"the middle phase lasts from step {phases.start} to {phases.end}"
    return Case(name, (), "holds" if inside else "fails", f"{peak.reason}; {where}")


def _case(results: Results, alike: list[str], rate: float | None, budget: int) -> Case:
    one_shot = [
        key
        for key, strategy in results.strategies.items()
        if not strategy.is_progressive and strategy.loss.asks_teacher and results.asks(key, budget)
    ]
    margins = [margin_over(results, alike[0], baseline, rate, budget) for baseline in one_shot]
    missing = "" if one_shot else "no one-shot strategy in the configuration"
    return decided(f"{results.joined_name(alike, rate)}, {budget:,} steps", margins, missing, smallest=SMALLEST_MARGIN)


N = Claim(
    name="N",
    text="On natural language, too, the loss of the teacher has three phases, its M_robust peaks in the middle one, "
    "and progressive distillation reaches higher accuracy than one-shot distillation.",
    source="section 4.2 and figure 6",
    rule="Of the one teacher that students learn from: the first case holds if its recorded held-out loss has a "
    "plateau and a rapid drop behind it, and fails otherwise; the second if the median M_robust, averaged over short "
    "n, ends below 0.9 of its peak and the peak lies between the steps at which the drop begins and ends; both are not "
    f"tested on fewer than {LEAST} measurements of the loss. Neither has an "
    "interval: another teacher may differ. Students of a progressive strategy and of each one-shot strategy of that "
    "budget are paired by seed and learning rate; such a case holds if the 95% Student t intervals of the difference "
    "in final held-out accuracy all lie above 0, fails if one lies below 0, and is undecided otherwise.",
    smallest=SMALLEST_MARGIN,
    figure="training_",
    measure=measure,
)
