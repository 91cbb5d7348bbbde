"""Sparse parity with two-layer Transformers (figures 1 middle, 7 right and 10 to 14 of the paper).

Claim: F1, R1, R2 and R6, at a size where Transformers of 8 heads learn within minutes on two CPU cores.

Command: ``python -m pdjax.main --config=configs/parity_transformer.py`` (``:smoke``, ``:paper``). ``:tune`` chooses
each strategy's learning rate and T by students of the teacher 100; ``:study`` compares them over 9 others, so far at
the defaults.

Cost: 14 minutes on two CPU cores (AMD EPYC, AVX-512); predicted from that, and not run: ``:tune`` 25,
``:study`` 35.

Expected: (students of seeds 0 to 9, 2026-11-24, docs/results/parity_transformer) the teacher's accuracy rises between
400 and 550 steps. After 2000 steps all ten students have learned from the middle of the transition or till saturate,
none from its start, two from its end, one from labels or one-shot, five with 15 checkpoints at the teacher's pace. R1
holds, R6 for heads of 8 dimensions each. Sizes were chosen on the seeds 100 to 104.
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
from pdjax.models.gpt2 import Gpt2
from pdjax.probes.attention import AttentionProbe
from pdjax.probes.monomials import MonomialProbe
from pdjax.protocol import STAGES, Plan
from pdjax.tasks.parity import ParityTask
from pdjax.train.sharding import MeshSizes, Placement
from pdjax.train.step import Evaluation

Point = Literal["start", "middle", "end"]
POINTS: tuple[Point, ...] = ("start", "middle", "end")
TEMPERATURES = (1.0, 1e-1, 1e-2, 0.0)  # besides 1e-4, that of all other strategies

REPORT = Report(
    title="Sparse parity with Transformers",
    question="Does a Transformer of few heads learn a sparse parity sooner from the checkpoints of one with many heads "
    "than from that one alone, or from labels?",
    paper="Panigrahi et al. (ICLR 2025) report that progressive distillation trains the small Transformer as fast as "
    "the large one (figure 1, middle).",
    paper_figures={
        "teacher": "figure 2 (left, there with MLPs)",
        "correlations": "figure 12",
        "attention": "figure 11",
        "sizes": "figures 7 (right) and 10",
    },
    main_figure="training_strategies",
)


@dataclasses.dataclass(frozen=True)
class Size:
    """What tells sizes apart; the defaults are a laptop's."""

    name: str = "parity_transformer"
    decides: bool = True
    dimension: int = 24
    degree: int = 2
    teacher_heads: int = 8
    student_layers: int = 2  # and those of other sizes; the teacher has the two that attention is probed in
    student_heads: int = 2
    teacher_rate: float = 1e-4  # slow enough for several checkpoints within the transition
    student_rates: tuple[float, ...] = (1e-3,)
    size_rates: tuple[float, ...] = (1e-3,)
    teacher_seeds: tuple[int, ...] = (0, 1, 2, 3)
    # As many as it takes to see a difference: each learns all or nothing.
    seeds: tuple[int, ...] = tuple(range(10))
    size_seeds: tuple[int, ...] = tuple(range(5))
    teacher_steps: int = 1_500
    steps: int = 2_000
    size_steps: int = 2_000
    checkpoint_every: int = 50
    progressive: int = 15
    duration: int = 400
    adaptive: int = 5
    saturated_after: int = 450  # at the latest: of five checkpoints 300 is the teacher's pace
    chunk: int = 50
    evaluate_every: int = 50
    evaluation_batches: int = 2
    max_degree: int = 1
    monomial_inputs: int = 4096
    heads: tuple[int, ...] = (1, 2, 4, 8)
    ways: int = 3
    width: int = 32
    averaged_width: int = 32
    data_devices: int = 1  # that share a batch


SIZES = {
    "": Size(),
    "smoke": Size(
        name="parity_transformer-smoke",
        decides=False,
        dimension=6,
        degree=2,
        teacher_heads=2,
        student_layers=1,
        student_heads=1,
        teacher_rate=5e-3,
        student_rates=(5e-3,),
        size_rates=(5e-3,),
        teacher_seeds=(0, 1),
        seeds=(0, 1),
        size_seeds=(0, 1),
        teacher_steps=400,
        steps=400,
        size_steps=400,
        checkpoint_every=40,
        progressive=5,
        duration=80,
        saturated_after=280,
        chunk=40,
        evaluate_every=40,
        monomial_inputs=2048,
        heads=(1, 2),
        ways=1,
        width=8,
        averaged_width=8,
    ),
    "paper": Size(
        name="parity_transformer-paper",
        dimension=100,
        degree=6,
        teacher_heads=32,
        student_heads=4,
        teacher_rate=3e-4,
        student_rates=(1e-4,),
        size_rates=(1e-3, 3e-4, 1e-4),
        seeds=tuple(range(5)),
        teacher_steps=250_000,
        steps=250_000,
        size_steps=250_000,
        checkpoint_every=10_000,
        progressive=25,
        duration=10_000,
        saturated_after=50_000,
        chunk=500,
        evaluate_every=2_500,
        max_degree=5,
        evaluation_batches=8,
        monomial_inputs=102_400,
        heads=(4, 8, 16, 32),
        width=256,
        averaged_width=256,
        data_devices=-1,
    ),
}
SIZES["paper-16-heads"] = dataclasses.replace(
    SIZES["paper"], name="parity_transformer-paper-16-heads", teacher_heads=16
)


PLANNED = ("", "smoke", "paper")


def plan_of(base: str) -> Plan:
    """Returns how a size is tuned and studied. All was fixed before any of these seeds was run."""
    size = SIZES[base]
    once = tuple(FixedDuration(size.duration * part // 2) for part in (1, 2, 3))
    plan = Plan(
        rates=(5e-4, 1e-3, 2e-3),
        schedules={"progressive": tuple(pace_of(size, pace) for pace in (0.5, 1.0, 2.0))} | dict.fromkeys(POINTS, once),
        tuned=("labels", "one_shot", "one_shot_soft", "progressive", "adaptive", *POINTS),
        controls=("timer",),
        teachers=tuple(range(400, 409)),
        students=(400, 401, 402),
    )
    changes: dict[str, dict[str, Any]] = {
        "": {},
        "smoke": dict(
            rates=(2.5e-3, 5e-3),
            schedules={},
            tuning_teacher=0,  # 100 has not learned after so few steps
            tuning_students=(100,),
            teachers=tuple(range(400, 406)),
            students=(400,),
            grid=Tuning(2.0, 2.5e-3, 5e-3),  # which does not grow: every size of it is compiled
        ),
        "paper": dict(rates=(3e-5, 1e-4, 3e-4), grid=Tuning(3.0, lowest=1e-6)),
    }
    return dataclasses.replace(plan, **changes[base])


def get_config(variant: str = "") -> ConfigDict:
    """Returns the experiment: '' for a laptop, 'smoke' for a test of seconds, 'paper' for the paper's sizes.

    'paper-16-heads' has the teacher of figure 11. ``tune`` and ``study`` (``smoke-tune``, ``paper-study``, ...): see
    ``pdjax.protocol``.
    """
    base, _, stage = variant.rpartition("-")
    if base in PLANNED and stage in STAGES:
        return configure(STAGES[stage](experiment(SIZES[base]), plan_of(base)))
    if variant not in SIZES:
        found = f"found {variant!r}"
        raise ValueError(f"expected configs/parity_transformer.py with one of {sorted(SIZES)} behind a colon; {found}")
    return configure(experiment(SIZES[variant]))


def experiment(size: Size) -> Experiment:
    """Returns the experiment of a size."""
    return Experiment(
        name=size.name,
        task=ParityTask(size.dimension, size.degree),
        teacher=Gpt2(2, size.teacher_heads),
        student=Gpt2(size.student_layers, size.student_heads),
        teacher_training=TeacherTraining(
            seed=size.teacher_seeds[0],
            extra_seeds=size.teacher_seeds[1:],
            steps=size.teacher_steps,
            batch_size=32,
            learning_rate=size.teacher_rate,
            checkpoint_every=size.checkpoint_every,
        ),
        student_training=StudentTraining(size.seeds, size.student_rates, budgets=(size.steps,), batch_size=32),
        strategies=strategies(size),
        comparisons=COMPARISONS,
        probes=Probes((MonomialProbe(size.max_degree, 100, size.monomial_inputs, 1024), AttentionProbe(1024))),
        sizes=Sizes(
            panels(size), size.size_seeds, size.size_rates, size.size_steps, batch_size=32, shared_batches=False
        ),
        evaluation=Evaluation(size.evaluate_every, size.evaluation_batches, batch_size=512),
        loop=Loop(size.chunk, save_every=8 * size.chunk, optimized=size.decides),
        placement=Placement(MeshSizes(data=size.data_devices)),
        report=dataclasses.replace(REPORT, decides=size.decides),
    )


def panels(size: Size) -> tuple[SizePanel, ...]:
    """Returns the three ways of counting heads of figure 10."""

    def models(**fields: object) -> tuple[SizedModel, ...]:
        return tuple(SizedModel(str(n), Gpt2(size.student_layers, n, **fields)) for n in size.heads)  # pyright: ignore

    width = size.averaged_width
    ways = (
        SizePanel("8 dimensions a head", models()),
        SizePanel(f"width {size.width}", models(head_dim=None, width=size.width)),
        SizePanel(f"averaged heads of {width}", models(head_dim=width, width=width, heads="average")),
    )
    return ways[: size.ways]


def strategies(size: Size) -> tuple[Strategy, ...]:
    """Returns the curricula of figures 1, 13 and 14."""
    equal, pace = Equal(size.progressive), pace_of(size)
    once = FixedDuration(size.duration)
    saturated = UntilSaturated("accuracy", window=5, min_gain=0.01, max_steps=size.saturated_after)
    return (
        Strategy("labels", Labels()),
        Strategy("one_shot"),
        Strategy("one_shot_soft", Distillation(temperature=1.0)),
        Strategy("progressive", schedule=pace, selection=equal),
        Strategy("adaptive", schedule=saturated, selection=Equal(size.adaptive)),
        # Moves on by a timer alone: what the former gains over it, what it has learned has decided.
        Strategy("timer", schedule=FixedDuration(size.saturated_after), selection=Equal(size.adaptive)),
        *(Strategy(point, schedule=once, selection=Transition((point,))) for point in POINTS),
        *(Strategy(temperature_name(t), Distillation(t), once, Transition(("middle",))) for t in TEMPERATURES),
    )


def pace_of(size: Size, factor: float = 1.0) -> FixedDuration:
    """Returns the teacher's own pace, or a multiple: as long on each checkpoint as it took to the next."""
    return FixedDuration(round(factor * (size.teacher_steps // size.progressive)))


COMPARISONS = (
    Comparison(
        "strategies",
        "The strategies",
        ("labels", "one_shot", "one_shot_soft", "progressive", "adaptive"),
        "figure 1 (middle)",
    ),
    Comparison(
        "two_shot",
        "One intermediate checkpoint, from the transition’s start, middle or end",
        ("labels", "one_shot_soft", "progressive", "start", "middle", "end"),
        "figure 13",
    ),
    Comparison("adaptive", "Moving on by what is learned, or by a timer alone", ("progressive", "adaptive", "timer")),
    Comparison(
        "temperatures",
        "Temperatures of the teacher",
        ("middle", *map(temperature_name, TEMPERATURES)),
        "figure 14",
    ),
)
