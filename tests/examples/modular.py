"""An experiment whose parts are all of a user's own: ``addition.py`` defines them, ``shown.py`` what the report adds.

python -m pdjax.main --config=tests/examples/modular.py --workdir=runs/modular
"""

from addition import DigitMlp, Doubling, Halfway, ModularTask, TotalVariation, UntilRight, WeightNorm
from ml_collections import ConfigDict
from shown import LossOverTraining, SoonerThan

from pdjax.configuration import configure
from pdjax.distill.losses import Labels
from pdjax.distill.selection import Equal
from pdjax.distill.strategy import Strategy
from pdjax.experiment import Comparison, Experiment, Loop, Probes, Report, StudentTraining, TeacherTraining
from pdjax.train.step import Evaluation


def get_config(variant: str = "") -> ConfigDict:
    """Returns the experiment, of seconds."""
    strategies = (
        Strategy("labels", Labels()),
        Strategy("one_shot"),
        Strategy("halfway", TotalVariation(), Doubling(), Halfway()),
        Strategy("patient", TotalVariation(weight=2.0), UntilRight(), Equal(4)),
    )
    return configure(
        Experiment(
            name="modular",
            task=ModularTask(),
            teacher=DigitMlp(width=64),
            student=DigitMlp(width=16),
            strategies=strategies,
            teacher_training=TeacherTraining(steps=64, checkpoint_every=8, batch_size=64, learning_rate=2e-2),
            student_training=StudentTraining(
                seeds=(0, 1), learning_rates=(2e-2,), budgets=(64,), batch_size=64, checkpoint_every=32
            ),
            comparisons=(Comparison("all", "The strategies", tuple(s.name for s in strategies)),),
            probes=Probes((WeightNorm(),), students=("halfway",)),
            report=Report((LossOverTraining(),), (SoonerThan("halfway", "labels", accuracy=0.3),)),
            evaluation=Evaluation(8, num_batches=1, batch_size=64),
            loop=Loop(8, save_every=32),
        )
    )
