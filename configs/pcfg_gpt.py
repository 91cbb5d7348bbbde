"""Progressive distillation of GPT-2 on the boundary tokens of a PCFG (figures 29 and 30 of the paper, appendix E).

Claim: R7. Where only the tokens of C^(3) count, those that end a symbol two levels above the terminals, progressive
distillation reaches a higher accuracy than one-shot distillation at equal student steps; the gap shrinks as students
train longer, and as more tokens count.

Command: ``python -m pdjax.main --config=configs/pcfg_gpt.py`` (``:smoke`` for half a minute, ``:seeds`` for six other
seeds at l = 3, ``:ablations`` for levels, grammars and sizes, figures 28, 31 and 32, ``:paper`` for the paper's sizes).
``:tune`` chooses each strategy's learning rate, T and kappa by students of the teacher 100; ``:study`` compares them
over 6 fresh teachers, so far at the defaults.

Cost: 18 minutes on two CPU cores (AMD EPYC, AVX-512), 2.6 GB of memory, 115 MB of disk; predicted, and
not run: ``:tune`` 25, ``:study`` 40.

Expected: (seeds 0 to 2, 2026-11-25, docs/results/pcfg_gpt) an accuracy of 0.785 for the teacher; for the students, R7
from paired seeds against one-shot:

    =======  ========  ========  ===========================  ======================
    steps    labels    one-shot  progressive (20-shot, T0/2)  progressive (2, 150)
    =======  ========  ========  ===========================  ======================
    300      0.601     0.598     0.565, fails                 0.612, undecided
    600      0.662     0.655     0.594, fails                 0.706, undecided
    =======  ========  ========  ===========================  ======================

The gap of (2, 150) after 600 steps, 0.050, has the interval [-0.001, 0.102]. Six fresh seeds on another machine
(``:seeds``, 2026-11-26, docs/results/pcfg_gpt_seeds), where the automatic choice is checkpoint 250 instead of 550, have
a gap of -0.028 [-0.058, 0.002]. By l from 1 to 4 the gaps are -0.008, -0.028 (now of ``:ablations``), 0.050 and 0.032.
The teacher's accuracy is 0.60 at step 100 (always the same terminal
is right at 0.51 of the places that count, the best guess from the last token at 0.55), 0.70 at step 300 (the best
guess from the last two tokens), and rises more slowly from there. The first fall of the loss, before step 50, is so
large that the selection 'phase' finds no plateau behind it; figure 29 has none either.

The laptop's task is the sub-grammar of cfg3f under symbol 18: strings of 20 to 81 tokens, 48 on average, of which 7
count. The learning rate of 2.5e-3 was chosen for the teacher, on seed 100: the losses after 1000 steps are 0.381
with 2.5e-3, 0.384 with 5e-3, 0.531 with 1e-2.
"""

import dataclasses
from typing import Any

from ml_collections import ConfigDict

from pdjax.configuration import configure
from pdjax.distill.losses import Distillation, Labels
from pdjax.distill.schedules import FixedDuration, TeacherSplit
from pdjax.distill.selection import Auto, Equal, Selection, Steps
from pdjax.distill.strategy import Strategy
from pdjax.experiment import (
    Ablation,
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
    Variant,
)
from pdjax.models.gpt2 import Gpt2
from pdjax.probes.agreement import AgreementProbe
from pdjax.probes.ngrams import NgramProbe
from pdjax.protocol import STAGES, Plan
from pdjax.tasks.pcfg import PcfgLanguageTask
from pdjax.train.optimizer import Adam
from pdjax.train.sharding import MeshSizes, Placement
from pdjax.train.state import MeanOver
from pdjax.train.step import Evaluation

REMARKS = dict(
    R7="No size that was measured shows the claim. At the laptop’s size, l = 3, the gap of (2, 150) after 600 steps "
    "was +0.050 [−0.001, 0.102] over seeds 0 to 2 with checkpoint 550 (docs/results/pcfg_gpt), and −0.028 "
    "[−0.058, 0.002] over seeds 3 to 8 on another machine, where the automatic choice was 250 "
    "(docs/results/pcfg_gpt_seeds); the 20-shot curriculum is behind in both. Larger sizes than these have not "
    "been run.",
)
CHECKPOINTS = 20  # of appendix E: at i/20 of the teacher's training
STRATEGIES = ("labels", "one_shot", "one_shot_soft", "progressive", "two_shot")
PROBED = ("labels", "one_shot", "progressive", "two_shot")
ADAM = Adam(clip_norm=1.0, beta2=0.95)

REPORT = Report(
    title="Next tokens of a grammar with GPT-2",
    question="Does a small GPT-2 predict the tokens that end a grammar’s symbols better when it learns from a larger "
    "one’s checkpoints than from its final state alone, or from labels?",
    paper="Panigrahi et al. (ICLR 2025) report that it does, by less the longer students train and the more tokens "
    "count (figures 30 and 31).",
    paper_figures={
        "accuracy_by_budget": "figure 30",
        "teacher": "figure 29 (left)",
        "ngrams": "figure 29 (b, c)",
        "features_": "figure 5 (there of BERT)",
        "features_over_training": "",
        "sizes": "figure 28",
    },
    main_figure="accuracy_by_budget",
)


@dataclasses.dataclass(frozen=True)
class Size:
    """What tells sizes apart; the defaults are a laptop's."""

    name: str = "pcfg_gpt"
    decides: bool = True
    root: int | None = 18
    teacher_heads: int = 8
    student_heads: int = 2
    layers: int = 4
    teacher_batch: int = 64
    student_batch: int = 48
    learning_rate: float = 2.5e-3
    student_rate: float = 5e-3
    teacher_steps: int = 1000
    seeds: tuple[int, ...] = (0, 1, 2)
    budgets: tuple[int, ...] = (300, 600)
    duration: int = 150
    chosen: Selection = Auto()
    chunk: int = 50
    evaluate_every: int = 100
    evaluation_batches: int = 16
    student_checkpoint_every: int | None = 150
    ngrams: NgramProbe = NgramProbe((3, 4, 5))  # of the 2-gram nothing is hidden: its M_robust is 0
    # Of the ablations: levels, grammars with the symbol under which they stand, and students' heads.
    levels: tuple[int, ...] = (1, 4)
    grammars: tuple[tuple[str, int | None], ...] = ()
    heads: int | None = None
    size_heads: tuple[int, ...] = ()
    mean_over: MeanOver = "batch"  # as the authors' code; the paper's equations 3 and 4 have sequences first
    data_devices: int = 1  # that share a batch


SIZES = {
    "": Size(),
    "smoke": Size(
        name="pcfg_gpt-smoke",
        decides=False,
        root=13,
        teacher_heads=2,
        student_heads=1,
        layers=1,
        teacher_batch=8,
        student_batch=8,
        teacher_steps=40,
        budgets=(8, 24),
        duration=4,
        chosen=Steps((10,)),  # too short a training to choose by
        chunk=2,
        evaluate_every=8,
        evaluation_batches=2,
        student_checkpoint_every=8,
        ngrams=NgramProbe((3, 4), num_sentences=4, num_positions=2, batch_size=8),
        levels=(1,),
    ),
    "paper": Size(
        name="pcfg_gpt-paper",
        root=None,
        teacher_heads=32,
        student_heads=8,
        teacher_batch=512,
        student_batch=512,
        learning_rate=5e-3,
        student_rate=5e-3,
        teacher_steps=8000,
        budgets=(2000, 4000, 8000, 16000),
        duration=1000,
        chunk=100,
        evaluate_every=400,
        evaluation_batches=8,
        student_checkpoint_every=1000,
        ngrams=NgramProbe((3, 4, 5, 10, 20), num_sentences=1024, num_positions=14, batch_size=128),
        levels=(1, 2, 4),
        grammars=(("cfg3g", None), ("cfg3h", None)),
        heads=16,
        size_heads=(8, 16, 32),
        mean_over="sequence",
        data_devices=-1,
    ),
    "seeds": Size(
        name="pcfg_gpt-seeds",
        seeds=(3, 4, 5, 6, 7, 8),  # that nothing was chosen by, and that no other run here has
        student_checkpoint_every=None,
        levels=(),
    ),
    "ablations": Size(
        name="pcfg_gpt-ablations",
        levels=(1, 2, 4),
        grammars=(("cfg3g", 18), ("cfg3h", 18)),
        heads=4,
        size_heads=(2, 4, 8),
    ),
}


PLAN = Plan(
    rates=(2.5e-3, 5e-3, 1e-2),
    schedules={
        "progressive": (TeacherSplit(0.5), TeacherSplit(1.0)),
        "two_shot": (FixedDuration(75), FixedDuration(150), FixedDuration(300)),
    },
    tuned=STRATEGIES,
    tuning_students=(100, 101, 102),
    teachers=(200, 201, 202, 203, 204, 205),
    students=(200, 201),
)
PLANS = {
    "": PLAN,
    "smoke": dataclasses.replace(
        PLAN,
        rates=(2.5e-3, 5e-3),
        schedules={},
        tuning_students=(100,),
        teachers=(200, 201, 202, 203, 204),
        students=(200,),
        grid=Tuning(2.0, 2.5e-3, 5e-3),  # which does not grow: every size of it is compiled
    ),
    "paper": dataclasses.replace(
        PLAN,
        schedules={
            "progressive": PLAN.schedules["progressive"],
            "two_shot": (FixedDuration(500), FixedDuration(1000), FixedDuration(2000)),
        },
    ),
}
"""How sizes are tuned and studied. All was fixed before any of these seeds was run."""


def get_config(variant: str = "") -> ConfigDict:
    """Returns the experiment: '' for a laptop, 'smoke' for a test of seconds, 'paper' for the paper's sizes.

    'seeds' has six other seeds at l = 3, for what three do not decide; 'ablations' adds grammars and sizes (figures 28,
    31 and 32) at a laptop's size; 'paper' has them too. 'tune' and 'study' ('smoke-tune', 'paper-study', ...): see
    ``pdjax.protocol``.
    """
    base, _, stage = variant.rpartition("-")
    if base in PLANS and stage in STAGES:
        return configure(STAGES[stage](experiment(SIZES[base]), PLANS[base]))
    if variant not in SIZES:
        raise ValueError(f"expected configs/pcfg_gpt.py with one of {sorted(SIZES)} behind a colon; found {variant!r}")
    return configure(experiment(SIZES[variant]))


def experiment(size: Size) -> Experiment:
    """Returns the experiment of a size."""
    student = Gpt2(size.layers, size.student_heads)
    return Experiment(
        name=size.name,
        # level: l of C^(l), the tokens that count: those that end a symbol l - 1 levels above the terminals
        task=PcfgLanguageTask("cfg3f", size.root, level=3),
        teacher=dataclasses.replace(student, num_heads=size.teacher_heads),
        student=student,
        teacher_training=TeacherTraining(
            steps=size.teacher_steps,
            batch_size=size.teacher_batch,
            learning_rate=size.learning_rate,
            checkpoint_every=size.teacher_steps // CHECKPOINTS,
            optimizer=ADAM,
            mean_over=size.mean_over,
        ),
        student_training=StudentTraining(
            seeds=size.seeds,
            learning_rates=(size.student_rate,),
            budgets=size.budgets,
            batch_size=size.student_batch,
            checkpoint_every=size.student_checkpoint_every,
            optimizer=ADAM,
            mean_over=size.mean_over,
        ),
        strategies=(
            Strategy("labels", Labels()),
            Strategy("one_shot"),
            Strategy("one_shot_soft", Distillation(1.0)),  # of section 2: the better one-shot counts
            Strategy("progressive", schedule=TeacherSplit(0.5), selection=Equal(CHECKPOINTS)),
            Strategy("two_shot", schedule=FixedDuration(size.duration), selection=size.chosen),
        ),
        comparisons=(Comparison("all", "The strategies", STRATEGIES, "figure 30"),),
        ablations=ablations(size, student),
        probes=Probes(
            (size.ngrams, AgreementProbe(2, size.teacher_batch)),
            students=() if size.student_checkpoint_every is None else PROBED,
            longest_alone=True,
        ),
        sizes=sizes(size, student) if size.size_heads else None,
        evaluation=Evaluation(size.evaluate_every, size.evaluation_batches, size.teacher_batch),
        loop=Loop(size.chunk, save_every=4 * size.chunk, optimized=size.decides),
        placement=Placement(MeshSizes(data=size.data_devices)),
        remarks=REMARKS,
        report=dataclasses.replace(REPORT, decides=size.decides),
    )


def ablations(size: Size, student: Gpt2) -> tuple[Ablation, ...]:
    """Returns the ablations: other tokens and grammars, and wider students."""

    def ablation(name: str, title: str, figure: str, base: str, variants: dict[str, dict[str, Any]], **fields: bool):
        each = tuple(Variant(variant, changes) for variant, changes in variants.items())
        compared = ("one_shot", "progressive", "two_shot")  # over T0/2, as the paper's are, and (2, T)
        return Ablation(name, title, each, compared, size.budgets, figure, base, **fields)

    levels = {f"level {level}": {"task": {"level": level}} for level in size.levels}
    grammars = {name: {"task": {"grammar": name, "root": root}} for name, root in size.grammars}
    asked = []
    if levels:
        sized = len(size.size_heads) > 0
        asked.append(ablation("level", "Tokens that count", "figures 28 and 30", "level 3", levels, sizes=sized))
    if grammars:
        asked.append(ablation("grammar", "Grammar", "figure 32", "cfg3f", grammars))
    if size.heads is not None:
        wide = dataclasses.replace(student, num_heads=size.heads)
        each = {
            f"{size.heads} heads, level {level}": {"task": {"level": level}, "student": wide}
            for level in sorted({3, *size.levels})
        }
        asked.append(ablation("student", "Size of the student", "figure 31", "smaller", each))
    return tuple(asked)


def sizes(size: Size, student: Gpt2) -> Sizes:
    """Returns models of several sizes trained from the labels."""
    models = tuple(SizedModel(str(n), dataclasses.replace(student, num_heads=n)) for n in size.size_heads)
    return Sizes(
        (SizePanel("heads", models),),
        learning_rates=(size.student_rate,),
        steps=size.teacher_steps,
        batch_size=size.student_batch,
        optimizer=ADAM,
    )
