"""Hierarchical parity with MLPs trained by SGD with batch 1 (figures 15 and 17 to 19 of the paper).

Claim: F1, R1 and H. One intermediate checkpoint does not suffice, two from the levels' spikes do.

Command: ``python -m pdjax.main --config=configs/hierarchical.py`` (``:smoke``, ``:paper``). ``:tune`` chooses each
strategy's learning rate and T by students of the teacher 100; ``:study`` compares them over 6 others, so far at the
defaults.

Cost: 5 minutes on two CPU cores, before pairs with a checkpoint outside were added; predicted from that, and not run:
``:tune`` 25, ``:study`` 15.

Expected: (seeds 0 to 4, 2026-11-24, docs/results/hierarchical) after 400,000 steps 0.42 to 0.44 from labels and
one-shot, 0.98 with checkpoints from the spikes of levels 1 and 2, 0.97 with that of level 1 alone, at most 0.48 with
those of levels 0 and 2. So H fails at this size: one checkpoint can suffice. On the seeds 100 to 104, on which the
sizes were chosen, it had held.
"""

import dataclasses
from typing import Any

from ml_collections import ConfigDict

from pdjax.configuration import configure
from pdjax.distill.adaptive import UntilSaturated
from pdjax.distill.losses import Distillation, Labels
from pdjax.distill.schedules import FixedDuration
from pdjax.distill.selection import Equal, Levels, Transition
from pdjax.distill.strategy import Strategy, temperature_name
from pdjax.experiment import Comparison, Experiment, Loop, Probes, Report, StudentTraining, TeacherTraining, Tuning
from pdjax.models.mlp import Mlp
from pdjax.probes.monomials import MonomialProbe
from pdjax.protocol import STAGES, Plan
from pdjax.tasks.parity import HierarchicalTask
from pdjax.train.optimizer import Sgd
from pdjax.train.step import Evaluation

TEMPERATURES = (1.0, 1e-1, 1e-2, 0.0)  # besides 1e-4, that of all other strategies

OUTSIDE = {"before_middle": Transition(("start", "middle")), "middle_after": Transition(("middle", "end"))}
"""Two checkpoints of which one is outside the transition (figure 18, where it is that at 6M steps)."""

REPORT = Report(
    title="Hierarchical parity with MLPs",
    question="Which of a teacher’s checkpoints does a student need for a tree of parities, the levels of which are "
    "learned one after another?",
    paper="Panigrahi et al. (ICLR 2025) report that one intermediate checkpoint does not suffice, and that two inside "
    "the transition can (figures 15, 18 and 19).",
    paper_figures={
        "teacher": "figure 18 (left)",
        "levels": "figure 17",
    },
    main_figure="training_few_shot",
)


@dataclasses.dataclass(frozen=True)
class Size:
    """What tells sizes apart; the defaults are a laptop's."""

    name: str = "hierarchical"
    decides: bool = True
    dimension: int = 50
    degree: int = 4
    depth: int = 3
    teacher_width: int = 2000
    student_width: int = 100
    rate: float = 1e-2
    teacher_seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    student_seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    teacher_steps: int = 600_000
    steps: int = 400_000
    checkpoint_every: int = 10_000
    progressive: int = 20
    duration: int = 100_000
    saturated_after: int = 60_000  # at the latest: twice the teacher's pace
    chunk: int = 5_000
    evaluate_every: int = 5_000
    max_degree: int = 3
    monomial_inputs: int = 20_480
    shared_batches: bool = False


SIZES = {
    "": Size(),
    "smoke": Size(
        name="hierarchical-smoke",
        decides=False,
        dimension=12,
        degree=2,
        depth=2,
        teacher_width=100,
        student_width=20,
        rate=2e-2,
        teacher_seeds=(0, 1),
        student_seeds=(0, 1),
        teacher_steps=8_192,
        steps=8_192,
        checkpoint_every=512,
        progressive=8,
        duration=2_048,
        saturated_after=2_048,
        chunk=256,
        evaluate_every=256,
        max_degree=2,
        monomial_inputs=4096,
    ),
    "paper": Size(
        name="hierarchical-paper",
        dimension=100,
        degree=5,
        depth=3,
        teacher_width=50_000,
        rate=5e-3,
        teacher_seeds=(0, 1, 2),  # R1 is about teachers
        student_seeds=(0, 1, 2),
        teacher_steps=20_000_000,
        steps=20_000_000,
        checkpoint_every=100_000,
        progressive=200,
        duration=2_000_000,
        saturated_after=2_000_000,  # the released code's limit
        chunk=10_000,
        evaluate_every=100_000,
        max_degree=2,
        monomial_inputs=102_400,
        shared_batches=True,  # the teacher's forward pass is what a student's step costs: once for all seeds
    ),
}


def plan_of(base: str) -> Plan:
    """Returns how a size is tuned and studied. All was fixed before any of these seeds was run."""
    size = SIZES[base]
    few = (*shots(size.depth), *OUTSIDE)
    plan = Plan(
        rates=(5e-3, 1e-2, 2e-2),
        schedules={"progressive": tuple(pace_of(size, pace) for pace in (0.5, 1.0, 2.0))}
        | dict.fromkeys(few, tuple(FixedDuration(size.duration * part // 2) for part in (1, 2, 3))),
        tuned=("labels", "one_shot", "one_shot_soft", "progressive", "adaptive", *few),
        controls=("timer",),
        tuning_students=(100, 101, 102),
        teachers=tuple(range(400, 406)),
        students=(400, 401, 402),
    )
    changes: dict[str, dict[str, Any]] = {
        "": {},
        "smoke": dict(
            rates=(1e-2, 2e-2),
            schedules={},
            tuning_students=(100,),
            students=(400,),
            grid=Tuning(2.0, 1e-2, 2e-2),  # which does not grow: every size of it is compiled
        ),
        "paper": dict(rates=(2.5e-3, 5e-3, 1e-2), schedules={}, tuning_students=(100,), students=(400,)),
    }
    return dataclasses.replace(plan, **changes[base])


def get_config(variant: str = "") -> ConfigDict:
    """Returns the experiment: '' for a laptop, 'smoke' for a test of seconds, 'paper' for the paper's sizes.

    With ``wide`` (``paper-wide``) the student is ten times as wide (figure 18 where the default is figure 19).
    ``tune`` and ``study`` (``smoke-tune``, ``paper-study``, ...): see ``pdjax.protocol``.
    """
    base, _, stage = variant.rpartition("-")
    if base in SIZES and stage in STAGES:
        return configure(STAGES[stage](experiment(SIZES[base]), plan_of(base)))
    variants = {"-".join(filter(None, (base, change))): (base, change) for base in SIZES for change in ("", "wide")}
    if variant not in variants:
        raise ValueError(
            f"expected configs/hierarchical.py with one of {sorted(variants)} behind a colon; found {variant!r}"
        )
    base, change = variants[variant]
    size = SIZES[base]
    if change:
        size = dataclasses.replace(size, name=f"{size.name}-wide", student_width=10 * size.student_width)
    return configure(experiment(size))


def experiment(size: Size) -> Experiment:
    """Returns the experiment of a size."""
    return Experiment(
        name=size.name,
        task=HierarchicalTask(size.dimension, size.degree, size.depth),
        teacher=Mlp((size.teacher_width,)),
        student=Mlp((size.student_width,)),
        teacher_training=TeacherTraining(
            seed=size.teacher_seeds[0],
            extra_seeds=size.teacher_seeds[1:],
            steps=size.teacher_steps,
            batch_size=1,
            learning_rate=size.rate,
            checkpoint_every=size.checkpoint_every,
            optimizer=Sgd(),
        ),
        student_training=StudentTraining(
            seeds=size.student_seeds,
            learning_rates=(size.rate,),
            budgets=(size.steps,),
            batch_size=1,
            shared_batches=size.shared_batches,
            optimizer=Sgd(),
        ),
        strategies=strategies(size),
        comparisons=comparisons(size),
        probes=Probes((MonomialProbe(size.max_degree, 100, size.monomial_inputs, 2048),)),
        evaluation=Evaluation(size.evaluate_every, num_batches=16, batch_size=256),
        loop=Loop(size.chunk, save_every=20 * size.chunk, optimized=size.decides),
        report=dataclasses.replace(REPORT, decides=size.decides),
    )


def shots(depth: int) -> dict[str, tuple[int, ...]]:
    """Returns the levels whose spikes few-shot strategies use: each alone, every two, and all of them."""
    levels = range(depth)
    single = {f"level_{i}": (i,) for i in levels}
    pairs = {f"levels_{i}_{j}": (i, j) for i in levels for j in levels if i < j}
    return single | pairs | ({"levels_all": tuple(levels)} if depth > 2 else {})


def strategies(size: Size) -> tuple[Strategy, ...]:
    """Returns the curricula of figures 15, 18 and 19."""
    equal, some = Equal(size.progressive), shots(size.depth)
    pace, once = pace_of(size), FixedDuration(size.duration)
    saturated = UntilSaturated("accuracy", window=5, min_gain=0.01, max_steps=size.saturated_after)
    lowest = Levels((size.depth - 2, size.depth - 1))  # two checkpoints, as in figure 18 (c)
    return (
        Strategy("labels", Labels()),
        Strategy("one_shot"),
        Strategy("one_shot_soft", Distillation(temperature=1.0)),
        Strategy("progressive", schedule=pace, selection=equal),
        Strategy("adaptive", schedule=saturated, selection=equal),
        # Moves on by a timer alone: what the former gains over it, what it has learned has decided.
        Strategy("timer", schedule=FixedDuration(size.saturated_after), selection=equal),
        *(Strategy(name, schedule=once, selection=Levels(levels)) for name, levels in some.items()),
        *(Strategy(name, schedule=once, selection=selection) for name, selection in OUTSIDE.items()),
        *(Strategy(temperature_name(t), Distillation(t), once, lowest) for t in TEMPERATURES),
    )


def pace_of(size: Size, factor: float = 1.0) -> FixedDuration:
    """Returns the teacher's own pace, or a multiple: as long on each checkpoint as it took to the next."""
    return FixedDuration(round(factor * (size.teacher_steps // size.progressive)))


def comparisons(size: Size) -> tuple[Comparison, ...]:
    """Returns the figures."""
    few = tuple(shots(size.depth))
    spikes = "One and more intermediate checkpoints, at the levels’ spikes"
    outside = "Two intermediate checkpoints, one of them outside the transition"
    temperatures = (f"levels_{size.depth - 2}_{size.depth - 1}", *map(temperature_name, TEMPERATURES))
    shown = ("labels", "one_shot", "one_shot_soft", "progressive", "adaptive")
    return (
        Comparison("strategies", "The strategies", shown, "figure 15"),
        Comparison("few_shot", spikes, ("one_shot", *few), "figures 18 (b) and 19"),
        Comparison("outside", outside, (few[-1], *OUTSIDE), "figures 18 (b) and 19"),
        Comparison(
            "adaptive", "Moving on by what is learned, or by a timer alone", ("progressive", "adaptive", "timer")
        ),
        Comparison("temperatures", "Temperatures of the teacher", temperatures, "figure 18 (c)"),
    )
