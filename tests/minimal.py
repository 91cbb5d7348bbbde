"""The smallest experiment with a teacher, probes and students, for tests that start many processes.

It is the smoke of configs/pcfg.py with strings of at most 10 tokens, models of one layer, four strategies and the one
probe that compiles in a second.
"""

import importlib.util
from pathlib import Path

from ml_collections import ConfigDict

from pdjax.config.building import optional

STRATEGIES = {"": ("labels", "one_shot", "progressive", "two_shot"), "few": ("labels", "two_shot")}


def get_config(variant: str = "") -> ConfigDict:
    """Returns the experiment; 'few' has two strategies, and no probe."""
    path = Path(__file__).parent.parent / "configs" / "pcfg.py"
    spec = importlib.util.spec_from_file_location("pcfg", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config("smoke")
    with config.unlocked():
        config.name = "minimal"
        config.task.root = 10
        config.teacher.num_layers = config.student.num_layers = 1
        config.student_training.budgets = (16,)
        config.strategies = ConfigDict({key: config.strategies[key] for key in STRATEGIES[variant]})
        del config.comparisons["first_checkpoint"]
        if variant == "few":
            config.comparisons, config.probes.students = ConfigDict({}), ()
        for name in ("ngrams", "nonterminals", *(["agreement"] if variant == "few" else [])):
            del config.probes[name]  # whose type is another than that of a placeholder
            config.probes[name] = optional(dict)
    return config.lock()
