"""The smallest experiment with a teacher, probes and students, for tests that start processes: it compiles in seconds.

It is the smoke of configs/parity_mlp.py on smaller MLPs, with batches of 4 (the plain loop over steps, as for
Transformers), four strategies and the probe of one monomial degree.
"""

import importlib.util
from pathlib import Path

from ml_collections import ConfigDict

from pdjax.config.building import comparison, optional, selection, strategy

STRATEGIES = {"": ("labels", "one_shot", "progressive", "two_shot"), "few": ("labels", "two_shot")}


def get_config(variant: str = "") -> ConfigDict:
    """Returns the experiment; 'few' has two strategies, no probe, and a fifth of the steps, for several processes."""
    times = 1 if variant == "few" else 5
    path = Path(__file__).parent.parent / "configs" / "parity_mlp.py"
    spec = importlib.util.spec_from_file_location("parity_mlp", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config("smoke")
    with config.unlocked():
        config.name = "minimal"
        config.task.dimension = 6
        config.teacher.widths, config.student.widths = (16,), (8,)
        for training in (config.teacher_training, config.student_training):
            training.batch_size = 4
        config.teacher_training.update(steps=64 * times, checkpoint_every=8 * times, extra_seeds=())
        config.student_training.update(seeds=(0, 1, 2), budgets=(32 * times,), shared_batches=True)
        config.loop.update(chunk_steps=4, save_every=16 * times)
        config.evaluation.update(every=8 * times, num_batches=2, batch_size=16)
        config.strategies.progressive.duration = 4 * times
        early = 16 * times
        chosen = selection("steps", steps=(early,))
        config.strategies.two_shot = strategy("fixed_duration", f"(2, {early})", chosen, duration=early)
        for name in set(config.strategies) - set(STRATEGIES[variant]):
            del config.strategies[name]
        shown = comparison("The strategies", "figure 1 (left)", *STRATEGIES[variant])
        config.comparisons = ConfigDict({"strategies": shown})
        config.sizes = None
        config.probes.monomials.update(num_inputs=64, batch_size=64, off_support=2)
        if variant == "few":
            del config.probes.monomials  # whose type is another than that of a placeholder
            config.probes.monomials = optional(dict)
    return config.lock()
