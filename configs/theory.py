"""The theory, run: Algorithm 1 of appendix B, teachers and students (section 3.2, theorem 3.2)."""

import dataclasses

from ml_collections import ConfigDict

from pdjax.configuration import configure
from pdjax.distill.hinge import Hinge, HingeLabels
from pdjax.distill.schedules import FixedDuration
from pdjax.distill.selection import Steps
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
from pdjax.models.symmetric import SymmetricMlp
from pdjax.probes.lemmas import LemmaProbe
from pdjax.probes.samples import SamplesProbe
from pdjax.settings import plain
from pdjax.tasks.parity import ParityTask
from pdjax.theory.algorithm import first_rate, second_rate, width
from pdjax.train.keeping import AtSteps
from pdjax.train.step import Evaluation
from pdjax.train.two_stage import TwoStage

REPORT = Report(title="The theory, run", decides=True)


@dataclasses.dataclass(frozen=True)
class Size:
    """What tells sizes apart."""

    name: str = "theory"
    dimension: int = 63
    degree: int = 4
    failure: float = 0.1
    teacher_seeds: tuple[int, ...] = tuple(range(100, 124))
    student_seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    chunk: int = 4096
    second: int = 2**18
    student_first: int = 16_384
    boost: float = 8.0
    dimensions: tuple[int, ...] = (21, 31, 45)
    degrees: tuple[tuple[int, int], ...] = ((21, 2), (21, 6))
    label_samples: int = 2**25


def get_config(variant: str = "") -> ConfigDict:
    size = Size()
    return configure(experiment(size))


def pair(size: Size, dimension: int, degree: int):
    """Returns what depends on d and k."""
    m, student = width(degree, size.failure), 2**degree * degree
    exact = TwoStage(size.chunk, first_rate(dimension, degree, m), support=tuple(range(degree)))
    rate = size.boost * second_rate(dimension, degree, m, size.second)
    student_rate = size.boost * second_rate(dimension, degree, student, size.second)
    return m, student, exact, rate, student_rate


def experiment(size: Size) -> Experiment:
    m, student, exact, rate, student_rate = pair(size, size.dimension, size.degree)
    steps = size.chunk + size.second
    kept = tuple(size.chunk * (1 + 2**i) for i in range(6))
    student_steps = size.student_first + size.second
    middle = FixedDuration(size.student_first)
    return Experiment(
        name=size.name,
        task=ParityTask(size.dimension, size.degree),
        teacher=SymmetricMlp(m),
        student=SymmetricMlp(student),
        teacher_training=TeacherTraining(
            seed=size.teacher_seeds[0],
            extra_seeds=size.teacher_seeds[1:],
            steps=steps,
            batch_size=1,
            learning_rate=rate,
            checkpoint_every=size.chunk,
            keep=AtSteps((size.chunk, *kept)),
            optimizer=exact,
            loss=HingeLabels(),
        ),
        student_training=StudentTraining(
            seeds=size.student_seeds,
            learning_rates=(student_rate,),
            budgets=(student_steps,),
            batch_size=1,
            shared_batches=False,
            optimizer=TwoStage(size.student_first, largest=1 / (2 * size.degree)),
        ),
        strategies=(
            Strategy("labels", HingeLabels()),
            Strategy("one_shot", Hinge()),
            Strategy("progressive", Hinge(), middle, Steps((size.chunk,))),
            Strategy("mixture", Hinge(0.5), middle, Steps((size.chunk,))),
        ),
        comparisons=(Comparison("strategies", "The strategies", ("labels", "one_shot", "progressive", "mixture")),),
        probes=Probes((LemmaProbe(), SamplesProbe(max_label_samples=size.label_samples))),
        ablations=ablations(size),
        evaluation=Evaluation(8192, num_batches=16, batch_size=256),
        loop=Loop(size.chunk, save_every=2**17),
        report=REPORT,
    )


def ablations(size: Size):
    def variant(name, dimension, degree):
        m, student, exact, rate, student_rate = pair(size, dimension, degree)
        optimizer = TwoStage(size.student_first, largest=1 / (2 * degree))
        return Variant(
            name,
            {
                "task": {"dimension": dimension, "degree": degree},
                "teacher": plain(SymmetricMlp(m)),
                "student": plain(SymmetricMlp(student)),
                "teacher_training": {"learning_rate": rate, "optimizer": plain(exact)},
                "student_training": {"learning_rates": (student_rate,), "optimizer": plain(optimizer)},
                "probes": {"measured": plain((LemmaProbe(), SamplesProbe(max_label_samples=size.label_samples)))},
            },
        )

    d = tuple(variant(str(d), d, size.degree) for d in size.dimensions)
    k = tuple(variant(f"{k} of {d}", d, k) for d, k in size.degrees)
    budget = (size.student_first + size.second,)
    return (
        Ablation("dimension", "Dimension", d, ("labels", "one_shot", "progressive"), budget, base=str(size.dimension)),
        Ablation("degree", "Degree", k, ("labels", "one_shot", "progressive"), budget),
    )
