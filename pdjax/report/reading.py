"""Reads a working directory, and refuses records that contradict each other."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pdjax.errors import UserError
from pdjax.experiment import Experiment, Sizes, StudentTraining
from pdjax.io.probe_records import read_probe
from pdjax.io.records import RunRecord, read_costs, read_run, read_sizes, read_students
from pdjax.io.sealed import read_json
from pdjax.io.selection import read_selection
from pdjax.io.workdir import read_experiment
from pdjax.report.results import Probed, Results
from pdjax.settings import named


def read_results(workdir: Path) -> Results:
    """Reads an experiment's working directory.

    Raises:
      UserError: there is no configuration, or a complete run lacks its last evaluation.
    """
    if not (workdir / "config.json").exists():
        raise UserError(
            "an experiment's working directory, with config.json in it",
            str(workdir),
            "give the directory that the experiment was started with",
        )
    experiment = read_experiment(workdir)
    teacher = _read_teacher(experiment, workdir / "teacher")
    students = tuple(read_students(workdir))
    sizes = tuple(read_sizes(workdir))
    memory = {run.description.name: _peak_memory(workdir / "students" / run.description.name) for run in students}
    memory |= {run.description.name: _peak_memory(workdir / "sizes" / run.description.name) for run in sizes}
    for run in students:
        _check_replicas(experiment.student_training, run, f"students/{run.description.name}")
        _check_end(run)
    for run in sizes:
        if experiment.sizes is not None:
            _check_replicas(experiment.sizes, run, f"sizes/{run.description.name}")
        _check_end(run)
    return Results(
        experiment=experiment,
        environment=_read_optional(workdir / "environment.json"),
        selection=read_selection(workdir),
        teacher=teacher,
        students=students,
        sizes=sizes,
        probed=_read_probes(experiment, workdir, students),
        variants=_read_variants(experiment, workdir),
        peak_memory_bytes={**memory, "teacher": _peak_memory(workdir / "teacher")},
        shares_teacher=(workdir / "teacher").is_symlink(),
    )


def _read_probes(experiment: Experiment, workdir: Path, students: Sequence[RunRecord]) -> dict[str, Probed]:
    directories = {"teacher": workdir}
    directories |= {run.description.name: workdir / "students" / run.description.name for run in students}
    names = named(experiment.probes.measured)
    return {run: {name: read_probe(path, name) for name in names} for run, path in directories.items()}


def _read_variants(experiment: Experiment, workdir: Path) -> dict[tuple[str, str], Results]:
    variants = {}
    for ablation in experiment.ablations:
        for variant in ablation.variants:
            directory = workdir / "ablations" / ablation.name / variant.name
            if (directory / "config.json").exists():
                variants[ablation.name, variant.name] = read_results(directory)
    return variants


def _read_teacher(experiment: Experiment, directory: Path) -> RunRecord | None:
    if not (directory / "run.json").exists():
        return None
    run = read_run(directory)
    if experiment.teacher_training.trajectory is None:
        return run
    # A curve copied from an existing trajectory is complete when it reaches the end; nothing ran here.
    return dataclasses.replace(run, complete=run.complete or run.description.budget in run.evaluation.steps)


def _read_optional(path: Path) -> Mapping[str, Any]:
    return read_json(path) if path.exists() else {}


def _peak_memory(directory: Path) -> int:
    return max((record["peak_memory_bytes"] for record in read_costs(directory)), default=0)


def _check_replicas(training: StudentTraining | Sizes, run: RunRecord, directory: str) -> None:
    asked = {(seed, rate) for seed in training.seeds for rate in training.learning_rates}
    surplus = {replica for replica in run.description.replicas if (replica.seed, replica.learning_rate) not in asked}
    if surplus:
        raise UserError(
            "runs with seeds and learning rates of config.json",
            f"{sorted(surplus, key=str)} in {directory}",
            "the run belongs to another configuration; move it out of the working directory",
        )


def _check_end(run: RunRecord) -> None:
    description, evaluation = run.description, run.evaluation
    final = evaluation.accuracy[evaluation.steps == description.budget]
    if run.complete and not (final.size and np.all(np.isfinite(final))):
        raise UserError(
            f"held-out results of every replica at step {description.budget} of the complete run {description.name}",
            f"those of {int(np.isfinite(final).sum())} of {len(description.replicas)}",
            "metrics.jsonl is damaged; remove the run's directory and start the experiment again",
        )
