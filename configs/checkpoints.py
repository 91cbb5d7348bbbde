"""Students of somebody's checkpoints: any BERT, GPT-2 or GPT-NeoX in Hugging Face's format, a folder for each step.

Claim: none of its own; F1 is judged with whatever teacher there is.

Command: ``python -m pdjax.main --config=configs/checkpoints.py:FOLDER``, where FOLDER holds ``step1000``,
``checkpoint-500``, ``step_20k`` or the like, is in the hub's cache (``models--ORG--NAME``), or is a pattern of such
folders (``'.../seed_0-step_*'``); or a trajectory that ``python -m pdjax.weights import`` has made.

Cost: converting reads every checkpoint once; then 1000 steps of students for each strategy.

Expected: depends on the checkpoints. Of 400 steps of a BERT, GPT-2 or GPT-NeoX on a small grammar, saved every 50, all
students finish within a minute on two CPU cores (tests/peer/test_import.py).

The teachers have to know the tokens of the task, here strings of a grammar: masked for BERT, the next token for the
others. Their tokenizer files are compared with the task's tokens. For a task of your own, write a configuration like
this one. The student has half of the teacher's heads. For a selection by the teacher's loss:
``--config.strategies.two_shot.selection.kind=Phase``.
"""

from ml_collections import ConfigDict

from pdjax.configuration import configure
from pdjax.distill.losses import Distillation, Labels
from pdjax.distill.schedules import EqualSplit
from pdjax.distill.selection import Equal
from pdjax.distill.strategy import Strategy
from pdjax.experiment import Comparison, Experiment, Loop, Report, StudentTraining, TeacherTraining
from pdjax.models.base import Architecture
from pdjax.models.bert import Bert
from pdjax.tasks.base import Task
from pdjax.tasks.pcfg import PcfgLanguageTask, PcfgTask
from pdjax.train.optimizer import Adam
from pdjax.train.step import Evaluation
from pdjax.weights.checkpoint import student_of, teacher_of

STRATEGIES = (
    Strategy("labels", Labels()),
    Strategy("one_shot"),
    Strategy("one_shot_soft", Distillation(temperature=1.0)),
    Strategy("two_shot", schedule=EqualSplit(), selection=Equal(2, nearest=True)),
    Strategy("progressive", schedule=EqualSplit(), selection=Equal(4, nearest=True)),
)


def get_config(source: str = "") -> ConfigDict:
    """Returns the experiment with the checkpoints in a folder, or in a trajectory, as teachers."""
    if not source:
        found = "found none; write configs/checkpoints.py:FOLDER"
        raise ValueError(f"expected the folder of somebody's checkpoints behind a colon; {found}")
    # The tokens of both tasks are the same: which model it is says which one it is for.
    teacher = teacher_of(source, PcfgTask())
    task = PcfgTask(root=16) if isinstance(teacher, Bert) else PcfgLanguageTask(root=16)
    return configure(experiment(source, teacher, task))


def experiment(source: str, teacher: Architecture, task: Task) -> Experiment:
    """Returns the experiment of a teacher's checkpoints."""
    return Experiment(
        name="checkpoints",
        task=task,
        teacher=teacher,
        student=student_of(teacher),
        teacher_training=TeacherTraining(trajectory=source),
        student_training=StudentTraining(
            learning_rates=(5e-3,), budgets=(500, 1000), checkpoint_every=500, optimizer=Adam(clip_norm=1.0)
        ),
        strategies=STRATEGIES,
        comparisons=(Comparison("strategies", "The strategies", tuple(strategy.name for strategy in STRATEGIES)),),
        evaluation=Evaluation(every=100, num_batches=8, batch_size=64),
        loop=Loop(chunk_steps=50),
        report=Report(
            title="Students of given checkpoints",
            question="Does a smaller model learn more from the checkpoints of a given teacher than from the last one "
            "alone, or from labels?",
        ),
    )
