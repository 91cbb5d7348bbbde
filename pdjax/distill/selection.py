"""Which checkpoints of a teacher a student learns from, and why.

A selection is a pure function of what the teacher's training recorded; it returns teacher steps and a
reason in plain language with the numbers behind it.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from pdjax.config import SelectionConfig
from pdjax.distill.curriculum import equally_spaced
from pdjax.distill.phases import Phases
from pdjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Selection:
    """Teacher steps in the order of a curriculum, the final one last, with the reason."""

    teacher_steps: tuple[int, ...]
    reason: str


def select(config: SelectionConfig, available: Sequence[int], phases: Phases) -> Selection:
    """Returns the checkpoints a selection names, among the stored ones.

    Args:
      config: the kind of selection and its settings.
      available: the steps of the trajectory, increasing; the last one is the final teacher.
      phases: of the teacher's training, which some kinds need.

    Raises:
      UserError: a checkpoint is not stored, or the training did not show what the selection needs.
    """
    final = available[-1]
    match config.kind:
        case "final":
            return Selection((final,), f"the final teacher, step {final}")
        case "steps":
            return Selection((*(config.steps or ()), final), "given in the configuration, and the final teacher")
        case "equal":
            count = config.count or 1
            steps = equally_spaced(count, final, available[0])
            return Selection(steps, f"{count} equally spaced checkpoints, {final // count} steps apart")
        case "multiples" if config.steps is not None:
            return _select_multiples(config, config.steps[0], final, "the first is given in the configuration")
        case "phase" | "multiples":
            loss = _require_shown(phases.loss, "phase transition in the teacher's loss", config.kind)
            first = _nearest(available, loss.middle)
            why = f"step {first} is the stored checkpoint nearest to the middle of the loss drop: {loss.reason}"
            if config.kind == "phase":
                return Selection((first, final), f"{why}; then the final teacher")
            return _select_multiples(config, first, final, why)
        case "robust_peak":
            peak = _require_shown(phases.robust_peak, "rise of the teacher's M_robust", config.kind)
            first = _nearest(available, peak.step)
            return Selection((first, final), f"step {first}: {peak.reason}; then the final teacher")
        case "auto":
            return _select_automatically(available, phases)
        case "transition":
            return _select_transition(config, available, phases)
        case "levels":
            return _select_levels(config, available, phases)


def measured_points(config: SelectionConfig, available: Sequence[int], num_levels: int) -> set[tuple[str, str | int]]:
    """Returns names of the intermediate checkpoints that a selection will find, at most one checkpoint each.

    A point that several selections find is the same checkpoint for all of them.

    Args:
      config: of a selection whose checkpoints are not given.
      available: the steps of the trajectory, increasing.
      num_levels: of the task.
    """
    match config.kind:
        case "transition":
            return {("transition", point) for point in config.points or ()}
        case "levels":
            return {("level", level) for level in (range(num_levels) if config.levels is None else config.levels)}
        case "multiples":  # of the middle of the phase: the earlier it is, the more
            most = _select_multiples(config, available[0], available[-1], "").teacher_steps[:-1]
            return {("phase", multiple) for multiple in range(1, len(most) + 1)}
        case "phase":
            return {("phase", 1)}
        case kind:
            return {(kind, 1)}


def _select_multiples(config: SelectionConfig, first: int, final: int, why: str) -> Selection:
    multiples = tuple(range(first, final, first))[: None if config.count is None else config.count - 1]
    return Selection((*multiples, final), f"{why}; then its multiples and the final teacher")


def _select_automatically(available: Sequence[int], phases: Phases) -> Selection:
    """Chooses one intermediate checkpoint by the loss and by M_robust together.

    A student gains from the time in which the teacher turns from short n-grams to longer contexts. The loss shows it
    as its drop, M_robust as its rise up to the peak. Where the two find different checkpoints within the drop, the
    one between them is the choice: neither is exact, and their errors are different. Where M_robust turns outside the
    drop, or only one of them shows anything, the drop decides before M_robust does.

    Raises:
      UserError: the training shows neither.
    """
    loss, peak = phases.loss, phases.robust_peak
    if loss is None and peak is None:
        _require_shown(None, "drop of the teacher's loss or rise of its M_robust", "auto")
    if loss is None:
        assert peak is not None
        wanted, why = peak.step, f"where M_robust turns: {peak.reason}; the loss shows no phases"
    elif peak is None or not loss.start <= peak.step <= loss.end:
        other = "M_robust was not measured or never rises" if peak is None else f"M_robust turns outside: {peak.reason}"
        wanted, why = loss.middle, f"the middle of the loss drop: {loss.reason}; {other}"
    else:
        wanted = (loss.middle + peak.step) // 2
        why = (
            f"halfway between step {loss.middle}, the middle of the loss drop, and step {peak.step}, where M_robust "
            f"turns: {loss.reason}; {peak.reason}"
        )
    first, final = _nearest(available, wanted), available[-1]
    return Selection((first, final), f"step {first} is the stored checkpoint nearest to {why}; then the final teacher")


def _select_transition(config: SelectionConfig, available: Sequence[int], phases: Phases) -> Selection:
    transition = _require_shown(phases.transition, "rise of the teacher's accuracy", config.kind)
    points = config.points or ()
    wanted = {point: _nearest(available, getattr(transition, point)) for point in points}
    steps = sorted(set(wanted.values()))
    named = ", ".join(f"{point} at {step}" for point, step in wanted.items())
    reason = f"stored checkpoints nearest to the transition's points ({named}): {transition.reason}"
    return Selection((*steps, available[-1]), f"{reason}; then the final teacher")


def _select_levels(config: SelectionConfig, available: Sequence[int], phases: Phases) -> Selection:
    spikes = _require_shown(phases.spikes, "record of the teacher's correlations", config.kind)
    levels = range(len(spikes)) if config.levels is None else config.levels
    unknown = [level for level in levels if not 0 <= level < len(spikes)]
    if unknown:
        raise UserError(f"selection.levels from 0 to {len(spikes) - 1}", str(unknown), "the root is level 0")
    steps = sorted({_nearest(available, spikes[level].step) for level in levels})
    why = "; ".join(spikes[level].reason for level in levels)
    return Selection((*steps, available[-1]), f"one checkpoint for each level's spike: {why}; then the final teacher")


def _nearest(available: Sequence[int], wanted: int) -> int:
    """Returns the stored step before the final one that is nearest to a step."""
    before_final = available[:-1]
    if not before_final:
        raise UserError("a stored checkpoint before the final one", "none", "lower teacher_training.checkpoint_every")
    return min(before_final, key=lambda step: abs(step - wanted))


def _require_shown(shown: Any, what: str, kind: str) -> Any:
    if shown is None:
        raise UserError(
            f"a {what} for selection.kind {kind!r}",
            "a training that shows none",
            "use selection.kind 'equal' or 'steps', train the teacher longer or evaluate it more often",
        )
    return shown
