"""Sparse parity with MLPs trained by SGD with batch 1 (figures 1 left, 2, 7 left, 8 and 9 of the paper).

Claim: F1, R1 and R2. A student that follows its teacher's checkpoints learns the parity in the teacher's own time;
one checkpoint from the middle of the teacher's transition is enough, one from its start or end is not.

Command: ``python -m pdjax.main --config=configs/parity_mlp.py`` (``:smoke``, ``:paper``). ``:tune`` chooses each
strategy's learning rate and T on the seeds 100 to 104; ``:study`` compares them at ``BEST`` over 9 fresh teachers.

Cost: 2.5 minutes on two CPU cores; a teacher of the paper's size 2.4 hours there, the whole of figure 1 (left) 3.5
(``benchmarks/parity_step.py``).

Expected: (seeds 0 to 4, 2026-11-24, docs/results/parity_mlp) the teacher's accuracy rises between 75,000 and 135,000
steps. After 180,000 steps 0.50 from labels, one-shot, and (2, 60000) from the start or end of the transition; 1.00
from its middle (by 115,000 steps) and with 12 checkpoints at the teacher's pace; 0.98 till saturate. R1 holds for
degrees 2 and 3 and fails for degree 1 (as in figure 9). Sizes were chosen, and the bounds of a transition set, on the
seeds 100 to 104.
"""

import dataclasses
from typing import Any, Literal

from ml_collections import ConfigDict

from pdjax.configuration import configure
from pdjax.distill.adaptive import UntilSaturated
from pdjax.distill.losses import Distillation, Labels
from pdjax.distill.schedules import FixedDuration
from pdjax.distill.selection import Equal, Transition
from pdjax.distill.strategy import Strategy, temperature_name
from pdjax.experiment import (
    Comparison,
    Experiment,
    Loop,
    Probes,
    Report,
    SizedModel,
    SizePanel,
    Sizes,
    StudentTraining,
    TeacherTraining,
    Tuning,
)
from pdjax.models.mlp import Mlp
from pdjax.probes.monomials import MonomialProbe
from pdjax.protocol import STAGES, Best, Plan
from pdjax.tasks.parity import ParityTask
from pdjax.train.optimizer import Sgd
from pdjax.train.step import Evaluation

Point = Literal["start", "middle", "end"]
BASELINES = ("labels", "one_shot", "one_shot_soft")
MOVING = "Moving on by what is learned, or by a timer alone"
POINTS: tuple[Point, ...] = ("start", "middle", "end")
STEPS = ("teacher_steps", "steps", "checkpoint_every", "duration", "saturated_after", "chunk", "evaluate_every")

REPORT = Report(
    title="Sparse parity with MLPs",
    question="Does a narrow network learn a sparse parity sooner from the checkpoints of a wide one than from the wide "
    "one alone, or from labels?",
    paper="Panigrahi et al. (ICLR 2025) report that progressive distillation trains the narrow network as fast as the "
    "wide one, while one-shot distillation and labels stay at chance (figure 1, left).",
    paper_figures={
        "teacher": "figure 2 (left)",
        "correlations": "figures 2 (middle) and 9",
        "correlations_by_seed": "figure 12 (there with Transformers)",
        "sizes": "figure 7 (left)",
    },
    main_figure="training_strategies",
)


@dataclasses.dataclass(frozen=True)
class Size:
    """What tells sizes apart; the defaults are a laptop's."""

    name: str = "parity_mlp"
    decides: bool = True
    dimension: int = 50
    degree: int = 5
    teacher_width: int = 2000
    student_width: int = 100
    rate: float = 1e-2
    teacher_seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    student_seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    size_seeds: tuple[int, ...] = (0, 1, 2, 3, 4)  # of models of other sizes: figure 7 has 5
    teacher_steps: int = 240_000
    steps: int = 180_000
    checkpoint_every: int = 5_000
    progressive: int = 12
    duration: int = 60_000
    saturated_after: int = 40_000  # at the latest: twice the teacher's pace
    chunk: int = 2_500
    evaluate_every: int = 2_500
    max_degree: int = 4
    monomial_inputs: int = 20_480
    widths: tuple[int, ...] = (100, 300, 1000, 2000)
    shared_batches: bool = False
    temperatures: tuple[float, ...] = (1.0, 1e-1, 1e-2, 0.0)  # besides 1e-4, that of all other strategies
    adaptive: bool = True


SIZES = {
    "": Size(),
    "smoke": Size(
        name="parity_mlp-smoke",
        decides=False,
        dimension=10,
        degree=2,
        teacher_width=100,
        student_width=20,
        rate=2e-2,
        teacher_seeds=(0, 1),
        student_seeds=(0, 1),
        size_seeds=(0, 1),
        teacher_steps=8_192,
        steps=8_192,
        checkpoint_every=512,
        progressive=8,
        duration=2_048,
        saturated_after=2_048,
        chunk=256,
        evaluate_every=256,
        max_degree=1,
        monomial_inputs=4096,
        widths=(20, 100),
    ),
    "large": Size(
        name="parity_mlp-large",
        dimension=100,
        degree=5,
        teacher_width=20_000,
        teacher_seeds=(0, 1, 2),
        student_seeds=(0, 1, 2),
        teacher_steps=2_500_000,
        steps=2_500_000,
        checkpoint_every=20_000,
        progressive=25,
        duration=400_000,
        saturated_after=200_000,
        chunk=5_000,
        evaluate_every=20_000,
        max_degree=3,
        widths=(),
        shared_batches=True,
        temperatures=(),
        adaptive=False,  # which would ask three teachers
    ),
    "paper": Size(
        name="parity_mlp-paper",
        dimension=100,
        degree=6,
        teacher_width=50_000,
        rate=5e-3,
        teacher_seeds=(0, 1, 2),  # R1 is about teachers
        student_seeds=(0, 1, 2),
        teacher_steps=20_000_000,
        steps=20_000_000,
        checkpoint_every=100_000,
        progressive=200,
        duration=1_000_000,
        saturated_after=2_000_000,  # the released code's limit
        chunk=10_000,
        evaluate_every=100_000,
        max_degree=5,
        monomial_inputs=102_400,
        widths=(100, 1000, 10_000, 50_000),
        shared_batches=True,  # the teacher's forward pass is what a student's step costs: once for all seeds
    ),
}


SHARES = {"": ((0.5, 1.0, 2.0), (0.5, 1.0, 1.5)), "smoke": ((1.0,), (0.5, 1.0)), "paper": ((1.0,), (1.0,))}
"""What ``:tune`` tries, by size: multiples of the teacher's pace, and shares of the duration on one checkpoint."""

BEST = {
    "labels": Best(4e-2),
    "one_shot": Best(1e-2),
    "one_shot_soft": Best(1e-2),
    "progressive": Best(2e-2, FixedDuration(10_000)),
    "adaptive": Best(1e-2),
    "timer": Best(1e-2),  # of the same family as progressive, of which it is the slowest pace
    "start": Best(1e-2, FixedDuration(30_000)),
    "middle": Best(2e-2, FixedDuration(30_000)),
    "end": Best(4e-2, FixedDuration(60_000)),
}
"""What ``:tune`` has chosen; other sizes have not been tuned, and are compared at their defaults."""


def plan_of(base: str) -> Plan:
    """Returns how a size is tuned and studied. All was fixed before any of these seeds was run.

    A first study on 200 to 207 stopped at the third, which had not learned; a second on 300 to 308 was stopped at the
    third before any of it was compared. That such are left out, and what of pairs is alike, was decided in between.
    """
    size, (paces, shares) = SIZES[base], SHARES[base]
    once = tuple(FixedDuration(round(share * size.duration)) for share in shares)
    plan = Plan(
        rates=(5e-3, 1e-2, 2e-2),
        schedules={"progressive": tuple(pace_of(size, pace) for pace in paces)} | dict.fromkeys(POINTS, once),
        tuned=(*BASELINES, "progressive", "adaptive", *POINTS),
        controls=("timer",),
        teachers=tuple(range(400, 409)),
        students=(400, 401, 402),
    )
    changes: dict[str, dict[str, Any]] = {
        "": dict(best=BEST),
        "smoke": dict(
            rates=(1e-2, 2e-2),
            tuning_students=(100, 101),
            teachers=tuple(range(200, 206)),
            students=(200,),
            grid=Tuning(2.0, 1e-2, 2e-2),  # which does not grow: every size of it is compiled
        ),
        "paper": dict(rates=(2.5e-3, 5e-3, 1e-2), tuning_students=(100,), students=(200,)),
    }
    return dataclasses.replace(plan, **changes[base])


def get_config(variant: str = "") -> ConfigDict:
    """Returns the experiment: '' for a laptop, 'smoke' for a test of seconds, 'paper' for the paper's sizes.

    ``large`` has the paper's dimension, degree 5 and a teacher 20,000 wide, for an hour on two cores. A size may be
    followed by a change, as in ``paper-wide``; of the laptop's, the change alone is the name. ``wide``: a student ten
    times as wide (figure 8). ``slow``: half the learning rate for twice the steps. ``fast``: twice the learning rate;
    at the paper's size that is figure 9, with its T, where its default is figure 2. ``tune`` and ``study``
    (``smoke-tune``, ``paper-study``, ...): see ``pdjax.protocol``.
    """
    base, _, stage = variant.rpartition("-")
    if base in SHARES and stage in STAGES:
        return configure(STAGES[stage](experiment(SIZES[base]), plan_of(base)))
    slow = dict(rate=0.5) | dict.fromkeys(STEPS, 2)
    fast = dict(rate=2) | (dict(duration=0.1) if base == "paper" else {})  # T is 0.1M in figure 9, and 1M in figure 2
    changes = {"": {}, "wide": dict(student_width=10), "slow": slow, "fast": fast}
    variants = {"-".join(filter(None, (base, change))): (base, change) for base in SIZES for change in changes}
    if variant not in variants:
        raise ValueError(
            f"expected configs/parity_mlp.py with one of {sorted(variants)} behind a colon; found {variant!r}"
        )
    base, change = variants[variant]
    size = SIZES[base]
    if change:
        scaled = {field: type(old)(old * by) for field, by in changes[change].items() for old in [getattr(size, field)]}
        size = dataclasses.replace(size, name=f"{size.name}-{change}", **scaled)
    return configure(experiment(size))


def experiment(size: Size) -> Experiment:
    """Returns the experiment of a size."""
    return Experiment(
        name=size.name,
        task=ParityTask(size.dimension, size.degree),
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
        sizes=sizes(size) if size.widths else None,
        evaluation=Evaluation(size.evaluate_every, num_batches=16, batch_size=256),
        loop=Loop(size.chunk, save_every=20 * size.chunk, optimized=size.decides),
        report=dataclasses.replace(REPORT, decides=size.decides),
    )


def sizes(size: Size) -> Sizes:
    """Returns the models of figure 7."""
    return Sizes(
        (SizePanel("width", tuple(SizedModel(str(width), Mlp((width,))) for width in size.widths)),),
        seeds=size.size_seeds,
        learning_rates=(size.rate,),
        steps=size.steps,
        batch_size=1,
        shared_batches=size.shared_batches,
        optimizer=Sgd(),
    )


def strategies(size: Size) -> tuple[Strategy, ...]:
    """Returns the curricula of figures 1, 2, 8, 9 and 14."""
    equal, pace = Equal(size.progressive), pace_of(size)
    saturated = UntilSaturated("accuracy", window=5, min_gain=0.01, max_steps=size.saturated_after)
    # The latter moves on by a timer alone: what the former gains over it, what it has learned has decided.
    adaptive = [
        Strategy("adaptive", schedule=saturated, selection=equal),
        Strategy("timer", schedule=FixedDuration(size.saturated_after), selection=equal),
    ]
    return (
        Strategy("labels", Labels()),
        Strategy("one_shot"),
        Strategy("one_shot_soft", Distillation(temperature=1.0)),
        Strategy("progressive", schedule=pace, selection=equal),
        *(adaptive if size.adaptive else []),
        *(Strategy(point, schedule=FixedDuration(size.duration), selection=Transition((point,))) for point in POINTS),
        *(Strategy(temperature_name(t), Distillation(t), pace, equal) for t in size.temperatures),
    )


def pace_of(size: Size, factor: float = 1.0) -> FixedDuration:
    """Returns the teacher's own pace, or a multiple: as long on each checkpoint as it took to the next."""
    return FixedDuration(round(factor * (size.teacher_steps // size.progressive)))


def comparisons(size: Size) -> tuple[Comparison, ...]:
    """Returns the figures."""
    shown = ("labels", "one_shot", "one_shot_soft", "progressive", *(["adaptive"] if size.adaptive else []))
    points = "One intermediate checkpoint, from the transition’s start, middle or end"
    temperatures = ("progressive", *map(temperature_name, size.temperatures))
    moving = ("progressive", "adaptive", "timer")
    figures = (
        Comparison("strategies", "The strategies", shown, "figure 1 (left)"),
        Comparison("two_shot", points, ("one_shot", "start", "middle", "end"), "figures 2 (right), 8 and 9"),
        *([Comparison("adaptive", MOVING, moving)] if size.adaptive else []),
        Comparison("temperatures", "Temperatures of the teacher", temperatures, "figure 14 (there with Transformers)"),
    )
    return figures if size.temperatures else figures[:-1]
