"""The smallest experiment with a teacher, probes and students, for tests that start processes: it compiles in seconds.

It is the smoke of configs/parity_mlp.py on smaller MLPs, with batches of 4 (the plain loop over steps, as for
Transformers), four strategies and the probe of one monomial degree.
"""

from ml_collections import ConfigDict

from pdjax.configuration import configure
from pdjax.distill.losses import Labels
from pdjax.distill.schedules import FixedDuration
from pdjax.distill.selection import Equal, Steps
from pdjax.distill.strategy import Strategy
from pdjax.experiment import Comparison, Experiment, Loop, Probes, StudentTraining, TeacherTraining
from pdjax.models.mlp import Mlp
from pdjax.probes.monomials import MonomialProbe
from pdjax.tasks.parity import ParityTask
from pdjax.train.optimizer import Sgd
from pdjax.train.step import Evaluation


def get_config(variant: str = "") -> ConfigDict:
    """Returns the experiment; 'few' has two strategies, no probe, and a fifth of the steps, for several processes."""
    few = variant == "few"
    times = 1 if few else 5
    early = FixedDuration(16 * times)
    strategies = (
        Strategy("labels", Labels()),
        Strategy("one_shot"),
        Strategy("progressive", schedule=FixedDuration(4 * times), selection=Equal(8)),
        Strategy("two_shot", schedule=early, selection=Steps((16 * times,))),
    )
    strategies = strategies[::3] if few else strategies
    return configure(
        Experiment(
            name="minimal",
            task=ParityTask(6, 2),
            teacher=Mlp((16,)),
            student=Mlp((8,)),
            strategies=strategies,
            teacher_training=TeacherTraining(
                steps=64 * times, batch_size=4, learning_rate=2e-2, checkpoint_every=8 * times, optimizer=Sgd()
            ),
            student_training=StudentTraining(
                learning_rates=(2e-2,), budgets=(32 * times,), batch_size=4, optimizer=Sgd()
            ),
            probes=Probes() if few else Probes((MonomialProbe(1, off_support=2, num_inputs=64, batch_size=64),)),
            comparisons=(
                Comparison("strategies", "The strategies", tuple(s.name for s in strategies), "figure 1 (left)"),
            ),
            evaluation=Evaluation(8 * times, num_batches=2, batch_size=16),
            loop=Loop(4, save_every=16 * times),
        )
    )
