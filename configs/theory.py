"""The theory, run: Algorithm 1 of appendix B, its lemmas, and the samples of its first stage (theorem 3.2).

Claim: R3. A student that learns from its teacher's checkpoint after the first stage needs about as many samples to find
the support in every dimension d; from labels it needs about d^(k-1). ``:causal`` is about claim C.

Command: ``python -m pdjax.main --config=configs/theory.py`` (``:smoke``, ``:sgd``, ``:causal``).

Cost: 16 minutes on two cores (AMD EPYC), 19 seconds for ``:smoke``; ``:sgd`` and ``:causal`` beside each other 15.9 and
11.5.

Expected: (teachers of the seeds 0 to 23, 2026-11-27, docs/results/theory) exponents in d for k = 4: from labels 3.12
[2.92, 3.31], from the first stage of aligned teachers -0.16 [-0.22, -0.16]; of teachers as the algorithm draws them
0.32 [-1.49, 1.13], undecided, and 10 to 16 of 24 cannot be learned from at all. Students of aligned teachers fit the
parity (accuracy 1.000), those of four others, from which it can be found, end at 0.51 to 0.81. Rules and sizes were
made on the seeds 100 to 123. ``:sgd``: from d = 15 to 50 labels take 18 times as many steps, a progressive student 4
times. ``:causal``: the part of degree 2 and less is enough, and students lose little without it.
"""

import dataclasses
import functools
from collections.abc import Iterable
from typing import Any

from ml_collections import ConfigDict

from pdjax.configuration import configure
from pdjax.distill.hinge import Hinge, HingeLabels
from pdjax.distill.losses import Distillation, Labels
from pdjax.distill.part import LowDegree, WithoutLowDegree
from pdjax.distill.schedules import FixedDuration, TeacherSplit
from pdjax.distill.selection import Steps, Transition
from pdjax.distill.strategy import Strategy
from pdjax.experiment import (
    Ablation,
    Comparison,
    Experiment,
    Loop,
    Probes,
    Report,
    StudentTraining,
    TeacherTraining,
    Variant,
)
from pdjax.models.mlp import Mlp
from pdjax.models.symmetric import SymmetricMlp
from pdjax.probes.lemmas import LemmaProbe
from pdjax.probes.monomials import MonomialProbe
from pdjax.probes.samples import SamplesProbe
from pdjax.settings import plain
from pdjax.tasks.parity import ParityTask
from pdjax.theory.algorithm import first_rate, second_rate, width
from pdjax.train.keeping import AtSteps
from pdjax.train.optimizer import Sgd
from pdjax.train.step import Evaluation
from pdjax.train.two_stage import TwoStage

FAILURE = 0.1
"""delta, of which the teacher's width depends by its logarithm."""

FASTER = 8.0
"""By how much eta_2 is above the printed one, with which lemma B.7 takes ``m d^2 k^3 / epsilon^2`` steps: 10^10."""

TAUGHT = ("one_shot", "progressive")
"""The strategies of aligned teachers."""

REPORT = Report(
    title="The theory, run",
    question="How many samples does the first stage of Algorithm 1 need to find the support of a parity, from labels, "
    "from a teacher’s first stage and from its last checkpoint?",
    paper="Theorem B.1 says k² log(d m/δ) from the first stage, and at least d^(k-1) from labels, or the smaller of "
    "that and one over the squared error from a final teacher.",
    paper_figures={},
    main_figure="samples_by_dimension",
)


@dataclasses.dataclass(frozen=True)
class Size:
    """What tells sizes apart; the defaults are a laptop's."""

    name: str = "theory"
    decides: bool = True
    dimension: int = 63
    degree: int = 4
    teacher_seeds: tuple[int, ...] = tuple(range(24))
    student_seeds: tuple[int, ...] = (10, 11, 12, 13, 14)
    chunk: int = 4096
    second: int = 2**18
    """steps of the second stage"""
    kept: tuple[int, ...] = (5, 17)
    """chunks after which checkpoints are kept, between that of the first stage and the last"""
    student_first: int = 2**14
    """samples of a student's first stage"""
    dimensions: tuple[int, ...] = (21, 31, 45)
    degrees: tuple[tuple[int, int], ...] = ((21, 2), (21, 6))
    batches: tuple[int, ...] = (2**16, 2**18, 2**20, 2**22)
    batch_dimension: int = 21
    max_samples: int = 2**18
    max_samples_at_first: int = 2**20
    """of the smallest dimension, where that is more than labels need"""
    max_label_samples: int = 2**25
    label_students: int = 20
    found: tuple[int, ...] = (5, 6, 7, 12)
    """the first teachers, as printed, from whose first stage both students of the search find the support within the
    samples of a student's first stage"""
    inputs: int = 2**17
    whole: bool = True
    """whether there are ablations and the mixture of labels and teacher, whose programs take most of a short test"""


SIZES = {
    "": Size(),
    "smoke": Size(
        name="theory-smoke",
        decides=False,
        dimension=9,
        degree=2,
        teacher_seeds=(0, 1),
        student_seeds=(0, 1),
        chunk=256,
        second=1792,
        kept=(2, 4),
        student_first=512,
        max_samples=1024,
        max_label_samples=4096,
        label_students=2,
        inputs=2**13,
        whole=False,
    ),
}


def get_config(variant: str = "") -> ConfigDict:
    """Returns an experiment: '' is Algorithm 1 at a laptop's size, 'smoke' that for a test of seconds.

    ``sgd`` asks the same of the SGD that the experiments of the paper use. ``causal`` asks which part of an
    intermediate checkpoint it is that helps.
    """
    made = {name: functools.partial(experiment, size) for name, size in SIZES.items()} | {"sgd": sgd, "causal": causal}
    if variant not in made:
        raise ValueError(f"expected configs/theory.py with one of {sorted(made)} behind a colon; found {variant!r}")
    return configure(made[variant]())


def experiment(size: Size) -> Experiment:
    """Returns the experiment of a size."""
    one = Setting(size, size.dimension, size.degree)
    return Experiment(
        name=size.name,
        task=one.task,
        teacher=one.teacher,
        student=one.student,
        teacher_training=TeacherTraining(
            seed=size.teacher_seeds[0],
            extra_seeds=size.teacher_seeds[1:],
            steps=size.chunk + size.second,
            batch_size=1,
            learning_rate=one.teacher_rate,
            checkpoint_every=size.chunk,
            keep=AtSteps((size.chunk, *(size.chunk * chunks for chunks in size.kept))),
            optimizer=one.exact,
            loss=HingeLabels(),
        ),
        student_training=StudentTraining(
            seeds=size.student_seeds,
            learning_rates=(one.student_rate,),
            budgets=(size.student_first + size.second,),
            batch_size=1,
            shared_batches=False,
            optimizer=one.student_optimizer,
        ),
        strategies=strategies(size),
        comparisons=(Comparison("strategies", "The strategies", tuple(s.name for s in strategies(size))),),
        probes=Probes(one.probes, seed=1),  # with 0 the rules were made
        ablations=ablations(size) if size.whole else (),
        evaluation=Evaluation(2 * size.chunk, num_batches=16, batch_size=256),
        loop=Loop(size.chunk, save_every=32 * size.chunk, optimized=size.decides),
        report=dataclasses.replace(REPORT, decides=size.decides),
    )


def strategies(size: Size) -> tuple[Strategy, ...]:
    """Returns those of theorem B.1: the checkpoint after the first stage is a student's teacher in its own first."""
    both = {"schedule": FixedDuration(size.student_first), "selection": Steps((size.chunk,))}
    return (
        Strategy("labels", HingeLabels()),
        Strategy("one_shot", Hinge()),
        Strategy("progressive", Hinge(), **both),
        *([Strategy("mixture", Hinge(0.5), **both)] if size.whole else []),
    )


@dataclasses.dataclass(frozen=True)
class Setting:
    """What follows from a size, d and k."""

    size: Size
    dimension: int
    degree: int
    aligned: bool = False

    @property
    def task(self) -> ParityTask:
        """The parity."""
        return ParityTask(self.dimension, self.degree)

    @property
    def teacher(self) -> SymmetricMlp:
        """The teacher, of the width of Lemma B.7."""
        return SymmetricMlp(width(self.degree, FAILURE), self.aligned)

    @property
    def student(self) -> SymmetricMlp:
        """A student, 2^k k wide."""
        return SymmetricMlp(2**self.degree * self.degree)

    @property
    def exact(self) -> TwoStage:
        """Algorithm 1 with the exact gradient, of which eta_1 leaves 1/2k; a chunk is enough for its first stage."""
        return TwoStage(self.size.chunk, largest=1 / (2 * self.degree), support=tuple(range(self.degree)))

    @property
    def student_optimizer(self) -> TwoStage:
        """Algorithm 1; eta_1 is not printed for gradients from teachers, whose size is another one."""
        return TwoStage(self.size.student_first, largest=1 / (2 * self.degree))

    @property
    def teacher_rate(self) -> float:
        """Returns eta_2 of the teacher."""
        return FASTER * second_rate(self.dimension, self.degree, self.teacher.width, self.size.second)

    @property
    def student_rate(self) -> float:
        """Returns eta_2 of a student."""
        return FASTER * second_rate(self.dimension, self.degree, self.student.width, self.size.second)

    @property
    def probes(self) -> tuple[LemmaProbe, SamplesProbe]:
        """What is measured; of labels once for aligned and other teachers."""
        size = self.size
        first = (min(size.dimensions), size.degree) == (self.dimension, self.degree)
        samples = SamplesProbe(
            # Neurons are alike: few of them are found in the same share, with less precision.
            width=min(self.student.width, 64),
            num_students=2,
            num_label_students=size.label_students,
            max_samples=size.max_samples_at_first if first else size.max_samples,
            max_label_samples=None if self.aligned else size.max_label_samples,
        )
        return LemmaProbe(size.inputs, min(4096, size.inputs)), samples

    def changes(self, **training: Any) -> dict[str, Any]:
        """Returns what a variant replaces in the experiment."""
        return {
            "task": {"dimension": self.dimension, "degree": self.degree},
            "teacher": plain(self.teacher),
            "student": plain(self.student),
            "teacher_training": {"learning_rate": self.teacher_rate, "optimizer": plain(self.exact), **training},
            "student_training": {
                "learning_rates": (self.student_rate,),
                "optimizer": plain(self.student_optimizer),
            },
            "probes": {"measured": plain(self.probes)},
        }

    def with_batch(self, batch: int) -> dict[str, Any]:
        """Returns what a variant replaces whose teachers take the mean gradient of so many samples."""
        rate = first_rate(self.dimension, self.degree, self.teacher.width)
        rule = TwoStage(batch, rate)
        keep, seeds = AtSteps((batch,)), self.size.teacher_seeds[1:8]
        training = {"optimizer": plain(rule), "keep": plain(keep), "extra_seeds": seeds}
        return self.changes(steps=batch + self.size.chunk, **training)


def ablations(size: Size) -> tuple[Ablation, ...]:
    """Returns the other dimensions and degrees, the teachers that the proof supposes, and mean gradients."""
    d, k, budgets = size.dimension, size.degree, (size.student_first + size.second,)

    def dimensions(aligned: bool, values: tuple[int, ...]) -> tuple[Variant, ...]:
        return tuple(Variant(str(value), Setting(size, value, k, aligned).changes()) for value in values)

    def degrees(aligned: bool) -> tuple[Variant, ...]:
        pairs = size.degrees
        ends = {"keep": plain(AtSteps((size.chunk,)))}
        return tuple(
            Variant(f"k{value} d{at}", Setting(size, at, value, aligned).changes(**ends)) for at, value in pairs
        )

    batches = tuple(
        Variant(str(batch), Setting(size, size.batch_dimension, k, True).with_batch(batch)) for batch in size.batches
    )
    of_found = tuple(Variant(str(seed), {"teacher_training": {"seed": seed, "extra_seeds": ()}}) for seed in size.found)
    every = (
        ("dimension", "Dimension d", dimensions(False, size.dimensions), ()),
        ("aligned", "Aligned teachers, by dimension", dimensions(True, (*size.dimensions, d)), TAUGHT),
        ("degree", "Degree k", degrees(False), ()),
        ("aligned_degree", "Aligned teachers, by degree", degrees(True), TAUGHT),
        ("batch", "Batch of the teacher’s first stage", batches, ()),
        ("found", "Teachers as printed from which the support can be found, by seed", of_found, TAUGHT),
    )
    return tuple(Ablation(*parts, budgets) for parts in every)


PLAIN: dict[str, Any] = {"batch_size": 1, "optimizer": Sgd()}
"""SGD with batch 1, of teachers and students."""

SGD_RATE = 1e-2
SGD_BUDGET = 250_000
"""Steps of students, after which those that have not found the parity are given up."""

TEACHER_STEPS = {
    (15, 4): 24_000,
    (25, 4): 60_000,
    (35, 4): 120_000,
    (50, 4): 300_000,
    (35, 3): 72_000,
    (35, 5): 300_000,
}
"""By d and k: about four times what teachers of the seeds 100 to 102 took to 95 %; at d = 35, k = 3 and 5, by those
of d = 25."""


def sgd() -> Experiment:
    """Returns the steps that SGD with batch 1 takes to 95 %, by dimension, degree, width and the teacher's loss."""
    d, k, steps = 35, 4, TEACHER_STEPS[35, 4]
    every = ("labels", "one_shot", "progressive", "short")

    def pairs(chosen: Iterable[tuple[int, int]], place: int) -> tuple[Variant, ...]:
        return tuple(
            Variant(
                str(pair[place]),
                {
                    "task": {"dimension": pair[0], "degree": pair[1]},
                    "teacher_training": {"steps": TEACHER_STEPS[pair]},
                },
            )
            for pair in chosen
        )

    widths = tuple(Variant(str(width), {"student": plain(Mlp((width,)))}) for width in (50, 200, 400))
    lengths = tuple(Variant(f"{n}", {"teacher_training": {"steps": n}}) for n in (45_000, 60_000, 240_000))
    budgets = (SGD_BUDGET,)
    return Experiment(
        name="theory-sgd",
        task=ParityTask(d, k),
        teacher=Mlp((1000,)),
        student=Mlp((100,)),
        teacher_training=TeacherTraining(seed=10, steps=steps, learning_rate=SGD_RATE, checkpoint_every=1500, **PLAIN),
        student_training=StudentTraining(
            seeds=(10, 11, 12, 13, 14), learning_rates=(SGD_RATE,), budgets=budgets, shared_batches=False, **PLAIN
        ),
        strategies=(
            Strategy("labels", Labels()),
            Strategy("one_shot"),
            # T0/4 and T0/16 with the checkpoint from the middle of the transition, then the final one.
            Strategy("progressive", schedule=TeacherSplit(0.5), selection=Transition(("middle",))),
            Strategy("short", schedule=TeacherSplit(0.125), selection=Transition(("middle",))),
        ),
        comparisons=(Comparison("strategies", "The strategies", every),),
        ablations=(
            Ablation("dimension", "Dimension d", pairs([(15, 4), (25, 4), (50, 4)], 0), every, budgets, base="35"),
            Ablation("degree", "Degree k", pairs([(35, 3), (35, 5)], 1), every, budgets, base="4"),
            Ablation("width", "Width of the student", widths, every, budgets, base="100"),
            Ablation("teacher", "Length of the teacher’s training", lengths, ("one_shot",), budgets, base="120000"),
        ),
        evaluation=Evaluation(1000, num_batches=8, batch_size=256),
        loop=Loop(500, save_every=50_000),
        report=Report(
            title="Samples of SGD with batch 1",
            question="How many samples does SGD with batch 1 take to learn a parity, as its dimension, its degree, the "
            "student’s width and the teacher’s error change?",
            paper="The paper’s analysis is of large batches; after theorem 3.2 it leaves batch 1 open.",
            main_figure="steps_dimension",
        ),
    )


CAUSAL_STEPS = 60_000
"""T: as long as in configs/parity_mlp.py."""


def causal() -> Experiment:
    """Returns students of parts of a checkpoint from the middle of its teacher's transition (claim C)."""
    low = {f"low_{degree}": LowDegree(degree) for degree in (1, 2, 3, 5)}
    without = {f"without_{degree}": WithoutLowDegree(degree) for degree in (1, 2, 3, 5)}
    elsewhere = {f"elsewhere_{degree}": LowDegree(degree, "elsewhere") for degree in (1, 2, 3, 5)}
    signs = {"permuted_3": LowDegree(3, signs="permuted"), "equal_3": LowDegree(3, signs="equal")}
    parts = low | without | elsewhere | signs
    strategies = [Strategy("labels", Labels())]
    for suffix, loss in (("", Distillation()), ("_soft", Distillation(1.0))):
        whole = Strategy(f"whole{suffix}", loss, FixedDuration(CAUSAL_STEPS), Transition(("middle",)))
        strategies += [Strategy(f"one_shot{suffix}", loss), whole]
        strategies += [dataclasses.replace(whole, name=f"{name}{suffix}", part=part) for name, part in parts.items()]
    again = ("one_shot", "whole", "low_2", "without_2", "elsewhere_2")
    again_soft = tuple(f"{name}_soft" for name in again)
    teachers = tuple(Variant(f"seed {seed}", {"teacher_training": {"seed": seed}}) for seed in (21, 22))
    budget = (2 * CAUSAL_STEPS,)

    def members(group: Iterable[str], suffix: str) -> tuple[str, ...]:
        beside = ("one_shot", "whole") if group else ("one_shot", "whole", "labels")
        return tuple(name if name == "labels" else f"{name}{suffix}" for name in (*beside, *group))

    return Experiment(
        name="theory-causal",
        task=ParityTask(50, 5),
        teacher=Mlp((2000,)),
        student=Mlp((100,)),
        teacher_training=TeacherTraining(
            seed=20, steps=4 * CAUSAL_STEPS, learning_rate=SGD_RATE, checkpoint_every=5000, **PLAIN
        ),
        student_training=StudentTraining(
            seeds=(20, 21, 22, 23, 24), learning_rates=(SGD_RATE,), budgets=budget, shared_batches=False, **PLAIN
        ),
        strategies=tuple(strategies),
        comparisons=tuple(
            Comparison(f"{name}{suffix}", f"{title}, temperature {temperature}", members(group, suffix))
            for suffix, temperature in (("_soft", "1"), ("", "1e-4"))
            for name, title, group in (
                ("low", "Low-degree parts alone", low),
                ("without", "All but the low-degree part", without),
                ("elsewhere", "Low-degree parts on other coordinates", elsewhere),
                ("signs", "Degree 3: signs permuted, weights equal", ("low_3", *signs)),
                ("labels", "One-shot and labels", ()),
            )
        ),
        ablations=(Ablation("teachers", "Other teachers", teachers, (*again, *again_soft), budget, base="seed 20"),),
        probes=Probes((MonomialProbe(5, 100, 20_480, 2048),)),
        evaluation=Evaluation(2500, num_batches=16, batch_size=256),
        loop=Loop(2500, save_every=50_000),
        report=Report(
            title="Which part of an intermediate checkpoint helps",
            question="Is it the low-degree part of a checkpoint from the middle of the teacher’s transition that helps "
            "a student of sparse parity?",
            paper="The paper shows that such checkpoints correlate with monomials of the support of low degree, and "
            "leaves open whether that is why they help.",
            main_figure="training_low",
        ),
    )
