"""The experiment's configuration: frozen dataclasses, built once from a ConfigDict and validated.

Config files under ``configs/`` describe an experiment as an ``ml_collections.ConfigDict``, which is what
command-line overrides act on. ``from_config_dict`` turns it into these dataclasses; everything else in
the package takes them and never looks at a ConfigDict. An unknown key, a missing key, a wrong type or a
contradiction is a ``UserError`` that names the key.
"""

from pdjax.config.experiment import Config, determining, digest_of, digest_of_results, from_config_dict
from pdjax.config.models import BertConfig, Compute, Gpt2Config, MlpConfig, ModelConfig
from pdjax.config.placement import MeshConfig, PlacementConfig
from pdjax.config.probes import (
    AgreementConfig,
    AttentionConfig,
    MonomialsConfig,
    NgramsConfig,
    NonterminalsConfig,
    ProbesConfig,
)
from pdjax.config.strategies import (
    LABELS_ONLY,
    AblationConfig,
    ComparisonConfig,
    CrossingConfig,
    Loss,
    SaturationConfig,
    SelectionConfig,
    StrategyConfig,
)
from pdjax.config.tasks import (
    HierarchicalTaskConfig,
    ParityTaskConfig,
    PcfgLanguageTaskConfig,
    PcfgTaskConfig,
    TaskConfig,
)
from pdjax.config.training import (
    EvaluationConfig,
    LoopConfig,
    OptimizerConfig,
    SizesConfig,
    StudentTrainingConfig,
    TeacherTrainingConfig,
)

__all__ = [
    "LABELS_ONLY",
    "AblationConfig",
    "AgreementConfig",
    "AttentionConfig",
    "BertConfig",
    "ComparisonConfig",
    "Compute",
    "Config",
    "CrossingConfig",
    "EvaluationConfig",
    "Gpt2Config",
    "HierarchicalTaskConfig",
    "LoopConfig",
    "Loss",
    "MeshConfig",
    "MlpConfig",
    "ModelConfig",
    "MonomialsConfig",
    "NgramsConfig",
    "NonterminalsConfig",
    "OptimizerConfig",
    "ParityTaskConfig",
    "PcfgLanguageTaskConfig",
    "PcfgTaskConfig",
    "PlacementConfig",
    "ProbesConfig",
    "SaturationConfig",
    "SelectionConfig",
    "SizesConfig",
    "StrategyConfig",
    "StudentTrainingConfig",
    "TaskConfig",
    "TeacherTrainingConfig",
    "determining",
    "digest_of",
    "digest_of_results",
    "from_config_dict",
]
