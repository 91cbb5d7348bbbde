"""Models: pure ``init`` and ``apply`` functions; parameters live outside."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
from jaxtyping import Array, Float, PRNGKeyArray

from pdjax.config import BertConfig, Gpt2Config, MlpConfig, ModelConfig
from pdjax.models.bert import Bert
from pdjax.models.gpt2 import Gpt2
from pdjax.models.mlp import Mlp
from pdjax.types import Inputs, Params, Task


@dataclasses.dataclass(frozen=True)
class LinenModel:
    """A Linen module seen as two pure functions."""

    module: nn.Module

    def init(self, key: PRNGKeyArray, inputs: Inputs) -> Params:
        """Draws initial parameters for inputs of these shapes."""
        return self.module.init(key, inputs)["params"]

    def apply(
        self, params: Params, inputs: Inputs, dropout_key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "*places V"], Mapping[str, Any]]:
        """Returns logits and intermediates; dropout is off without a key."""
        if dropout_key is None:
            return self.module.apply({"params": params}, inputs)
        return self.module.apply({"params": params}, inputs, deterministic=False, rngs={"dropout": dropout_key})


def build_model(config: ModelConfig, task: Task) -> LinenModel:
    """Builds the model a configuration describes, for a task's tokens, classes and length."""
    match config:
        case BertConfig():
            return LinenModel(Bert(config, task.vocabulary, task.length))
        case Gpt2Config():
            last_only = task.predicts == "example"
            return LinenModel(Gpt2(config, task.vocabulary, task.num_classes, task.length, last_only))
        case MlpConfig():
            return LinenModel(Mlp(config.widths, task.num_classes))


def num_parameters(params: Params) -> int:
    """Returns the number of scalars in a pytree of arrays."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
