"""How adaptive strategies go on: what is measured at an evaluation, and the rule that decides by it."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from pdjax.config import AgreementConfig, Config, CrossingConfig, StrategyConfig
from pdjax.distill.saturation import crossing_starts, saturation_starts
from pdjax.io.processes import fetch
from pdjax.models import build_model
from pdjax.probes.agreement import agreement
from pdjax.probes.ngrams import MEASURES, ngram_distances
from pdjax.tasks import build_task
from pdjax.tasks.pcfg import PcfgLanguageTask, PcfgTask
from pdjax.train.loop import Adapt, ByReplica, ByTeacher
from pdjax.types import Mean, Params, exact_ratio


def adaptation(config: Config, strategy: StrategyConfig, teachers: Callable[[], Params], count: int) -> Adapt | None:
    """Returns how a strategy goes on; None for one whose curriculum is fixed.

    Args:
      config: of the experiment.
      strategy: with a rule, where it is adaptive.
      teachers: reads its checkpoints, stacked.
      count: how many those are.
    """
    if strategy.schedule == "till_saturate" and strategy.saturation is not None:
        rule, agrees = strategy.saturation, strategy.saturation.score == "agreement"

        def decide_by_scores(
            steps: Sequence[int], accuracy: Sequence[ByReplica], measured: Sequence[ByTeacher]
        ) -> list[tuple[int, ...]]:
            alike = np.repeat(np.stack(accuracy)[:, :, None], count, axis=2)  # whoever the teacher is
            scores = np.stack(measured) if agrees else alike
            return [saturation_starts(rule, steps, scores[:, replica]) for replica in range(scores.shape[1])]

        return Adapt(decide_by_scores, _agreement(config, teachers()) if agrees else None)
    if strategy.schedule == "till_robust" and strategy.crossing is not None:
        crossing = strategy.crossing

        def decide_by_robustness(
            steps: Sequence[int], _: Sequence[ByReplica], measured: Sequence[ByTeacher]
        ) -> list[tuple[int, ...]]:
            surplus = np.stack(measured)
            return [crossing_starts(crossing, steps, surplus[:, replica]) for replica in range(surplus.shape[1])]

        return Adapt(decide_by_robustness, _surplus(config, crossing, teachers()))
    return None


def _agreement(config: Config, teachers: Params) -> Callable[[Params], ByTeacher]:
    """Returns how often students predict what each of the K checkpoints predicts, on the held-out examples."""
    task = build_task(config.task)
    student, teacher = build_model(config.student, task), build_model(config.teacher, task)
    evaluation = AgreementConfig(config.evaluation.num_batches, config.evaluation.batch_size)

    @jax.jit
    def measure(params: Params, teachers: Params, seed: Int[Array, ""]) -> Mean:
        return jax.lax.map(
            lambda checkpoint: agreement(task, student, teacher, evaluation, params, checkpoint, seed).same, teachers
        )

    def agreed(params: Params) -> ByTeacher:
        same = fetch(measure(params, teachers, jnp.int32(config.seed)))
        return exact_ratio(same.sum, same.count).T

    return agreed


def _surplus(config: Config, crossing: CrossingConfig, teachers: Params) -> Callable[[Params], ByTeacher]:
    """Returns by how much students' median M_robust, the mean over n, is above that of each of the K checkpoints."""
    task = build_task(config.task)
    assert isinstance(task, PcfgTask | PcfgLanguageTask)  # the config requires it

    @functools.partial(jax.jit, static_argnums=0)
    def robustness(teaching: bool, params: Params, seed: Int[Array, ""]) -> Float[Array, "R"]:
        model = build_model(config.teacher if teaching else config.student, task)
        distances = ngram_distances(task, model, crossing.ngrams, params, seed)
        return jnp.median(distances[:, MEASURES.index("robust")], axis=-1).mean(axis=-1)

    seed = jnp.int32(config.seed)
    of_teachers = fetch(robustness(True, teachers, seed)).astype(np.float64)
    return lambda params: fetch(robustness(False, params, seed)).astype(np.float64)[:, None] - of_teachers[None]
