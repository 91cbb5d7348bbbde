"""Tasks: distributions of batches, sampled on the device."""

from pdjax.config import PcfgTaskConfig, TaskConfig
from pdjax.tasks.parity import ParityTask
from pdjax.tasks.pcfg import PcfgTask
from pdjax.types import Task


def build_task(config: TaskConfig) -> Task:
    """Builds the task a configuration describes."""
    return PcfgTask(config) if isinstance(config, PcfgTaskConfig) else ParityTask(config)
