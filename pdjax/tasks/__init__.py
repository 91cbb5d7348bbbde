"""Tasks: distributions of batches, sampled on the device."""

from pdjax.config import PcfgTaskConfig
from pdjax.tasks.pcfg import PcfgTask
from pdjax.types import Task


def build_task(config: PcfgTaskConfig) -> Task:
    """Builds the task a configuration describes."""
    return PcfgTask(config)
