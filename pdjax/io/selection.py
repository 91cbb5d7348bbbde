"""The record of which checkpoints were chosen, and of what in the teacher's training they were chosen by."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pdjax.distill.phases import LossPhases, RobustPeak, Spike, Transition
from pdjax.distill.selection import Chosen
from pdjax.io.sealed import read_json, write_json

_NAME = "selection.json"


@dataclasses.dataclass(frozen=True)
class SelectionRecord:
    """What was found in the teachers' training, and the checkpoints of every strategy; None: was not found."""

    phases: LossPhases | None = None
    transitions: tuple[Transition | None, ...] = ()  # of all teachers; students learn from the first
    spikes: tuple[Spike, ...] | None = None  # one for each level of the task, the root first
    robust_peak: RobustPeak | None = None
    chosen: Mapping[str, Chosen] = dataclasses.field(default_factory=dict)  # by strategy

    @property
    def transition(self) -> Transition | None:
        """Of the teacher that students learn from."""
        return self.transitions[0] if self.transitions else None

    def steps(self, strategy: str) -> tuple[int, ...]:
        """Returns the teacher steps that were chosen for a strategy; none are while nothing is recorded."""
        return self.chosen[strategy].teacher_steps if strategy in self.chosen else ()


def write_selection(workdir: Path, selection: SelectionRecord) -> None:
    """Writes ``selection.json``."""
    fields = dataclasses.asdict(selection)
    fields["strategies"] = fields.pop("chosen")
    write_json(workdir / _NAME, {**fields, "transition": fields["transitions"][0]})


def read_selection(workdir: Path, is_there: bool = False) -> SelectionRecord | None:
    """Reads ``selection.json``; None where nothing was chosen (yet).

    Args:
      workdir: of the experiment.
      is_there: it has to be, as students were trained by it.

    Raises:
      UserError: it is damaged, or not there.
    """
    if not (workdir / _NAME).exists() and not is_there:
        return None
    fields = read_json(workdir / _NAME)
    spikes = fields.get("spikes")
    transitions = fields.get("transitions") or [fields.get("transition")]
    return SelectionRecord(
        _made(LossPhases, fields.get("phases")),
        tuple(_made(Transition, transition) for transition in transitions),
        None if spikes is None else tuple(Spike(**spike) for spike in spikes),
        _made(RobustPeak, fields.get("robust_peak")),
        {name: Chosen(tuple(one["teacher_steps"]), one["reason"]) for name, one in fields["strategies"].items()},
    )


def _made(kind: Any, fields: Mapping[str, Any] | None) -> Any:
    return None if fields is None else kind(**fields)
