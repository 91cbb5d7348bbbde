"""Which runs the students of an experiment are: for every budget one for each curriculum, whatever its losses."""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pdjax import curriculum as curricula
from pdjax.config import Config, StrategyConfig, digest_of
from pdjax.curriculum import Curriculum
from pdjax.evidence import Evidence
from pdjax.records import RunDescription
from pdjax.selection import select
from pdjax.stages.programs import student_replicas
from pdjax.stages.selection import select_checkpoints
from pdjax.store import CheckpointStore


def check_curricula(config: Config, stored: Sequence[int]) -> None:
    """Checks all curricula that can be known before the teacher is trained, which may take days.

    Args:
      config: of the experiment.
      stored: the teacher steps that the trajectory holds, or will hold.

    Raises:
      UserError: a curriculum asks for a checkpoint that is not among them, or does not fit a student's length.
    """
    for budget, (_, strategy) in asked_runs(config):
        chosen = strategy.selection
        if chosen.kind in ("final", "equal", "steps") or (chosen.kind == "multiples" and chosen.steps is not None):
            steps = select(chosen, stored, Evidence()).teacher_steps
            table = build_curriculum(strategy, steps, stored[-1], budget)
            if table is not None:
                table.check_available(stored)


def asked_runs(config: Config) -> list[tuple[int, tuple[str, StrategyConfig]]]:
    """Returns the pairs of budget and strategy that the configuration asks for, by budget."""
    pairs = itertools.product(config.budgets, config.strategies.items())
    return [(budget, item) for budget, item in pairs if config.asks(item[0], budget)]


def plan_runs(
    config: Config, workdir: Path, trajectory: CheckpointStore
) -> list[tuple[StrategyConfig, RunDescription]]:
    """Chooses the checkpoints (writing ``selection.json``) and describes all runs, in their order.

    Strategies with the same curriculum are one run, each with its own loss; the first stands for all of them.

    Raises:
      UserError: a curriculum asks for a checkpoint that is not stored, or does not fit the student's length.
    """
    available = trajectory.steps()
    selections = select_checkpoints(config, workdir, available)
    groups: dict[Any, list[str]] = {}
    for budget, (name, strategy) in asked_runs(config):
        steps = selections[name].teacher_steps
        table = build_curriculum(strategy, steps, available[-1], budget)
        if table is not None:
            table.check_available(available)
        rule = (strategy.schedule, strategy.saturation, strategy.crossing) if strategy.is_adaptive else None
        starts = table.starts if table is not None else ()
        used = () if table is None else steps if strategy.is_adaptive else table.teacher_steps
        groups.setdefault((budget, starts, tuple(used), rule), []).append(name)
    runs = []
    for (budget, starts, steps, _), names in groups.items():
        losses = tuple(dict.fromkeys(config.strategies[name].loss for name in names))
        description = RunDescription(
            role="student",
            name=f"{names[0]}-{budget}",
            strategies=tuple(names),
            budget=budget,
            replicas=student_replicas(config, losses),
            starts=starts,
            teacher_steps=steps,
            identity="",
        )
        strategy = config.strategies[names[0]]
        identity = _identity(config, strategy, description, trajectory)
        runs.append((strategy, dataclasses.replace(description, identity=identity)))
    return runs


def build_curriculum(
    strategy: StrategyConfig, teacher_steps: Sequence[int], teacher_length: int, budget: int
) -> Curriculum | None:
    """Returns the table of a strategy for a student of ``budget`` steps; None for labels only."""
    match strategy.schedule:
        case "labels":
            return None
        case "one_shot":
            return curricula.one_shot(teacher_length)
        case "fixed_duration":
            assert strategy.duration is not None  # the config requires it
            return curricula.fixed_duration(teacher_steps, strategy.duration)
        case "equal_split":
            return curricula.equal_split(teacher_steps, budget)
        case "teacher_split":
            assert strategy.kappa is not None  # the config requires it
            return curricula.teacher_split(teacher_steps, teacher_length, strategy.kappa, budget)
        case "till_saturate" | "till_robust":
            return Curriculum((0,), (teacher_steps[0],))  # its first row; the others follow from the evaluations


def _identity(
    config: Config, strategy: StrategyConfig, description: RunDescription, trajectory: CheckpointStore
) -> str:
    """Digest of all that determines a run's results: its settings, and the very arrays of its teachers."""
    whole = config.as_dict()
    settings = {key: whole[key] for key in ("seed", "task", "student", "evaluation")}
    training = {k: v for k, v in whole["student_training"].items() if k != "budgets"}
    teachers = [trajectory.digest(step) for step in description.teacher_steps]
    rules = {key: dataclasses.asdict(strategy)[key] for key in ("saturation", "crossing")}
    run = dataclasses.asdict(description)
    return digest_of({**settings, "training": training, "teachers": teachers, "run": run, **rules})
