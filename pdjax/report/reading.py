"""Reads a working directory, and refuses records that contradict each other."""

import dataclasses
import itertools
import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pdjax.errors import UserError
from pdjax.experiment import Experiment
from pdjax.io.probe_records import read_probe
from pdjax.io.records import RunRecord, joined, read_costs, read_run, read_sizes, read_students
from pdjax.io.sealed import read_json
from pdjax.io.selection import read_selection
from pdjax.io.workdir import read_experiment
from pdjax.report.results import Probed, Results
from pdjax.settings import named

logger = logging.getLogger("pdjax")


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
    rates = {rate for strategy in experiment.strategies for rate in experiment.rates(strategy)}
    recorded = read_students(workdir)
    if experiment.tuning is not None:
        # It may have tried rates that came to nothing.
        recorded = [run for run in recorded if {one.learning_rate for one in run.description.replicas} <= rates]
    for run in recorded:
        _check_replicas(experiment.student_training.seeds, rates, run, f"students/{run.description.name}")
        _check_end(run)
    for run in (recorded_sizes := read_sizes(workdir)):
        if experiment.sizes is not None:
            _check_replicas(
                experiment.sizes.seeds, experiment.sizes.learning_rates, run, f"sizes/{run.description.name}"
            )
        _check_end(run)
    for root, runs in ((workdir / "students", recorded), (workdir / "sizes", recorded_sizes)):
        for run in runs:
            _check_costs(run, root / run.description.name)
    shares_teacher = (workdir / "teacher").is_symlink()
    if teacher is not None and experiment.teacher_training.trajectory is None and not shares_teacher:
        _check_costs(teacher, workdir / "teacher")
    students, sizes = joined(recorded), joined(recorded_sizes)
    places = {run: [workdir / "students" / part.description.name for part in parts] for run, parts in students.items()}
    places |= {run: [workdir / "sizes" / part.description.name for part in parts] for run, parts in sizes.items()}
    own = {experiment.teacher_training.seed: workdir}
    records = {
        seed: place / "left_out.json" for seed, place in (own | _places_of_teachers(experiment, workdir)).items()
    }
    left_out = {seed: read_json(path)["reason"] for seed, path in records.items() if path.exists()}
    memory = {run.description.name: max(map(_peak_memory, directories)) for run, directories in places.items()}
    return Results(
        experiment=experiment,
        environment=_read_optional(workdir / "environment.json"),
        selection=read_selection(workdir, is_there=bool(recorded)),
        tuned=_read_optional(workdir / "tuned.json"),
        teacher=teacher,
        students=tuple(students),
        sizes=tuple(sizes),
        probed=_read_probes(experiment, workdir, students),
        variants=_read_variants(experiment, workdir),
        teachers=_read_teachers(experiment, workdir),
        left_out=left_out,
        peak_memory_bytes={**memory, "teacher": _peak_memory(workdir / "teacher")},
        shares_teacher=shares_teacher,
    )


def _read_probes(
    experiment: Experiment, workdir: Path, students: Mapping[RunRecord, Sequence[RunRecord]]
) -> dict[str, Probed]:
    names = named(experiment.probes.measured)
    probed: dict[str, Probed] = {"teacher": {name: read_probe(workdir, name) for name in names}}
    for run, parts in students.items():
        probed[run.description.name] = {name: _read_joined(workdir, parts, name) for name in names}
    return probed


def _read_joined(
    workdir: Path, parts: Sequence[RunRecord], name: str
) -> tuple[list[dict[str, Any]], Mapping[str, Any]]:
    """Reads what a probe has measured on the students of runs that are one: their replicas are counted on."""
    records, listing, before = [], {}, 0
    for part in parts:
        found, listed = read_probe(workdir / "students" / part.description.name, name)
        records += [{**record, "replica": before + record["replica"]} for record in found]
        listing, before = listed or listing, before + len(part.description.replicas)
    return records, listing


def _read_variants(experiment: Experiment, workdir: Path) -> dict[tuple[str, str], Results]:
    variants = {}
    for ablation in experiment.ablations:
        for variant in ablation.variants:
            directory = workdir / "ablations" / ablation.name / variant.name
            if (directory / "config.json").exists():
                variants[ablation.name, variant.name] = read_results(directory)
    return variants


def _read_teachers(experiment: Experiment, workdir: Path) -> dict[int, Results]:
    return {seed: read_results(place) for seed, place in _places_of_teachers(experiment, workdir).items()}


def _places_of_teachers(experiment: Experiment, workdir: Path) -> dict[int, Path]:
    """Returns the directories of the further teachers that have begun, by their seeds."""
    places = {seed: workdir / "teachers" / str(seed) for seed in experiment.further_teachers}
    return {seed: place for seed, place in places.items() if (place / "config.json").exists()}


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


def _check_costs(run: RunRecord, directory: Path) -> None:
    """Says that a complete run took longer than its costs say: no result depends on them, so they are not refused."""
    lost = {*run.train.steps.tolist()} - {record["step"] for record in read_costs(directory)}
    if run.complete and lost:
        logger.warning("%s: the costs of %d of its chunks were lost, so its time is too short", directory, len(lost))


def _check_replicas(seeds: Sequence[int], rates: Collection[float], run: RunRecord, directory: str) -> None:
    asked = set(itertools.product(seeds, rates))
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
