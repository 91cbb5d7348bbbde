"""Parts of checkpoints: what students see of them is measured before they are taught, and recorded beside their run."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from pdjax.distill.part import Fourier, FourierPart, measure
from pdjax.experiment import Experiment
from pdjax.io.records import RunDescription
from pdjax.io.sealed import write_json
from pdjax.io.store import CheckpointStore
from pdjax.settings import plain
from pdjax.stages.runs import run_directory
from pdjax.tasks.base import Task
from pdjax.types import Params


def plan_parts(
    experiment: Experiment, workdir: Path, trajectory: CheckpointStore
) -> Callable[[FourierPart, RunDescription, tuple[int, ...], Params], Params]:
    """Returns how stacked checkpoints of some steps become what students of a run see, ``part.json`` being written."""
    task, teacher = experiment.task, experiment.teacher.build(experiment.task)
    # Parts that make different things of the same terms share what is measured of them.
    known: dict[Any, Fourier] = {}

    def in_part(part: FourierPart, description: RunDescription, steps: tuple[int, ...], checkpoints: Params) -> Params:
        # Final is the trajectory's last step, not the curriculum's: a short student may never reach it.
        seen = {*description.teacher_steps} - {trajectory.latest_step()}
        found: dict[int, Fourier] = {}
        for index, step in enumerate(steps):
            if step not in seen:
                continue
            of = part.measured(task), part.num_inputs, part.seed
            if (step, of) not in known:
                params = jax.tree.map(lambda leaf, index=index: leaf[index], checkpoints)
                known[step, of] = measure(task, teacher, *of, params)
            found[step] = known[step, of]
        write_json(run_directory(workdir, description) / "part.json", _record(part, task, found))
        return part.params(task, checkpoints, [found.get(step) for step in steps])

    return in_part


def _record(part: FourierPart, task: Task, found: Mapping[int, Fourier]) -> dict[str, Any]:
    """Returns what was measured of each teacher, and the coefficients that students see, as plain data."""
    teachers = [
        {
            "step": step,
            "coefficients": one.coefficients.tolist(),
            "standard_errors": one.errors.tolist(),
            "shown": part.weights(task, one.coefficients).tolist(),
        }
        for step, one in found.items()
    ]
    measured, shown = part.measured(task).members, part.shown(task).members
    return {"part": plain(part), "monomials": measured, "shown_monomials": shown, "teachers": teachers}
