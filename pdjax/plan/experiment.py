"""A whole experiment on given hardware: its programs, hours by stage, and disk."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from pdjax.config import Config
from pdjax.flops import count_products
from pdjax.plan.hardware import Chip, Topology
from pdjax.plan.program import EFFICIENCY, ProgramPlan, plan_program, teacher_shape
from pdjax.residency import SHARE, memory_of
from pdjax.selection import Evidence, select
from pdjax.stages.programs import Training, size_program, student_program, teacher_program
from pdjax.step import evaluate, init_state
from pdjax.store import SAFETY, tree_bytes
from pdjax.train import KEPT_STATES


@dataclasses.dataclass(frozen=True)
class StagePlan:
    """What a stage takes."""

    name: str
    steps: int  # of all its runs together
    hours: float  # not a number where a program does not fit
    disk: int  # bytes


@dataclasses.dataclass(frozen=True)
class ExperimentPlan:
    """What an experiment takes."""

    config: str
    topology: str
    devices: int
    residency: str  # stacked or streamed, with the bytes of both
    programs: tuple[ProgramPlan, ...]
    stages: tuple[StagePlan, ...]

    @property
    def fits(self) -> bool:
        """Whether all programs do."""
        return all(p.memory is not None and p.memory.fits for p in self.programs)


def plan_experiment(config: Config, topology: Topology | None) -> ExperimentPlan:
    """Plans an experiment for a topology, or with measured steps for the devices of this machine.

    Raises:
      UserError: a mesh does not fit the devices.
    """
    devices = jax.devices() if topology is None else topology.devices
    chip = None if topology is None else topology.chip
    plan = functools.partial(plan_program, config, chip=chip, devices=devices)
    teaching, learning = teacher_program(config), student_program(config, guided=True)
    checkpoints, size = len(known_checkpoints(config)), tree_bytes(teacher_shape(learning))
    memory = chip.memory if chip is not None else min(memory_of(device) for device in devices)
    stacked = config.placement.residency == "stacked" or (
        config.placement.residency == "auto" and checkpoints * size <= SHARE * memory
    )
    programs = {
        "teacher": (plan("teacher", teaching, held=1), teaching),
        "students with a teacher": (
            plan("students with a teacher", learning, held=checkpoints if stacked else None),
            learning,
        ),
    }
    if any(strategy.schedule == "labels" for strategy in config.strategies.values()):
        alone = student_program(config, guided=False)
        programs["students of labels"] = (plan("students of labels", alone, held=1), alone)
    sizes = config.sizes
    if sizes is not None:
        for name, model in [(f"{p}/{label}", m) for p, models in sizes.panels.items() for label, m in models.items()]:
            training = size_program(config, sizes, model)
            programs[f"size {name}"] = (plan(f"size {name}", training, held=1), training)
    how = "stacked" if stacked else "streamed"
    return ExperimentPlan(
        config=config.name,
        topology="this machine" if topology is None else topology.name,
        devices=len(devices),
        residency=f"{how} ({checkpoints} checkpoints stacked {checkpoints * size / 1e6:.0f} MB, "
        f"two streamed {2 * size / 1e6:.0f} MB, of {memory / 1e9:.0f} GB)",
        programs=tuple(program for program, _ in programs.values()),
        stages=_stages(config, programs, chip, size),
    )


def known_checkpoints(config: Config) -> Sequence[int]:
    """Returns the teacher steps that strategies use, as far as they are known before the teacher is trained.

    A checkpoint that a selection finds later lies among the stored ones; each counts as one more.
    """
    training = config.teacher_training
    stored = range(training.checkpoint_every, training.steps + 1, training.checkpoint_every)
    known: set[int] = set()
    found = 0
    for strategy in config.strategies.values():
        if strategy.schedule == "labels":
            continue
        if strategy.selection.kind in ("final", "equal", "steps"):
            known |= set(select(strategy.selection, stored, Evidence(None, None, None)).teacher_steps)
        else:
            found += len(strategy.selection.points or strategy.selection.levels or (1,))
    others = [step for step in stored if step not in known][:found]
    return sorted(known | set(others))


def _stages(
    config: Config, programs: dict[str, tuple[ProgramPlan, Training]], chip: Chip | None, size: int
) -> tuple[StagePlan, ...]:
    training = config.teacher_training
    teachers = 1 + len(training.extra_seeds)
    kept = int(SAFETY * teachers * size * (training.steps // training.checkpoint_every))
    found = [_stage("teacher", training.steps, programs["teacher"], 1, config, chip, kept)]
    budgets = config.student_training.budgets
    for labels in (False, True):
        name = "students of labels" if labels else "students with a teacher"
        runs = sum((s.schedule == "labels") == labels for s in config.strategies.values())
        if runs:
            found.append(_stage(name, runs * sum(budgets), programs[name], runs * len(budgets), config, chip, 0))
    if config.sizes is not None:
        for name, program in programs.items():
            if name.startswith("size "):
                found.append(_stage(name, config.sizes.steps, program, 1, config, chip, 0))
    return tuple(found)


def _stage(
    name: str,
    steps: int,
    program: tuple[ProgramPlan, Training],
    runs: int,
    config: Config,
    chip: Chip | None,
    kept: int,
) -> StagePlan:
    plan, training = program
    seeds = jax.ShapeDtypeStruct((training.num_replicas,), jnp.int32)
    state = jax.eval_shape(functools.partial(init_state, training.program), seeds)
    rate = 1 / plan.seconds if plan.seconds > 0 else float("nan")
    products = count_products(
        functools.partial(evaluate, training.program, config.evaluation.num_batches, config.evaluation.batch_size),
        state.params,
        jax.ShapeDtypeStruct((), jnp.int32),
    ).total()
    if chip is None:  # as fast as the step's own products
        speed = (plan.teacher_products + plan.student_products) * rate
    else:
        speed = chip.products["float32"] * EFFICIENCY["compute"] * _devices(plan)
    evaluating = steps / config.evaluation.every * products / speed
    disk = kept + int(SAFETY * runs * KEPT_STATES * tree_bytes(state))
    return StagePlan(name, steps, (steps * plan.seconds + evaluating) / 3600, disk)


def _devices(plan: ProgramPlan) -> int:
    count = 1
    for size in plan.mesh.values():
        count *= size
    return count


def as_json(plan: ExperimentPlan) -> dict[str, Any]:
    """Returns a plan as plain data."""
    return dataclasses.asdict(plan) | {"fits": plan.fits}
