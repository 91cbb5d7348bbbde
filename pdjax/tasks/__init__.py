"""Tasks: distributions of batches, sampled on the device."""

import functools

from pdjax.config import HierarchicalTaskConfig, ParityTaskConfig, PcfgLanguageTaskConfig, PcfgTaskConfig, TaskConfig
from pdjax.tasks.parity import ParityTask
from pdjax.tasks.pcfg import PcfgLanguageTask, PcfgTask
from pdjax.types import Task


@functools.cache  # equal tasks are one object, so that equal programs are compiled once
def build_task(config: TaskConfig) -> Task:
    """Builds the task a configuration describes."""
    match config:
        case PcfgTaskConfig():
            return PcfgTask(config)
        case PcfgLanguageTaskConfig():
            return PcfgLanguageTask(config)
        case ParityTaskConfig() | HierarchicalTaskConfig():
            return ParityTask(config)
