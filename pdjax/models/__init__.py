"""Models: pure ``init`` and ``apply`` functions; parameters live outside."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from pdjax.config import BertConfig, Compute, Gpt2Config, MlpConfig, ModelConfig
from pdjax.models.bert import Bert
from pdjax.models.gpt2 import Gpt2
from pdjax.models.mlp import Mlp
from pdjax.models.precision import products_in
from pdjax.types import Inputs, Params, Task


@dataclasses.dataclass(frozen=True)
class LinenModel:
    """A Linen module seen as two pure functions.

    Parameters are float32. With ``compute`` bfloat16 they and the activations are rounded to it on the way through
    the module; sums in layer norms and attention, and the logits, stay in float32. With tf32 only the operands of
    products are rounded.
    """

    module: nn.Module
    compute: Compute = "float32"

    def init(self, key: PRNGKeyArray, inputs: Inputs) -> Params:
        """Draws initial parameters for inputs of these shapes."""
        return self.module.init(key, inputs)["params"]

    def apply(
        self, params: Params, inputs: Inputs, dropout_key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "*places V"], Mapping[str, Any]]:
        """Returns logits and intermediates; dropout is off without a key."""
        params, inputs = _rounded((params, inputs), "bfloat16" if self.compute == "bfloat16" else "float32")
        options: dict[str, Any] = {}
        if dropout_key is not None:
            options = {"deterministic": False, "rngs": {"dropout": dropout_key}}
        with products_in(self.compute):
            logits, intermediates = self.module.apply({"params": params}, inputs, **options)
        return logits.astype(jnp.float32), intermediates


def _rounded(tree: Any, kind: str) -> Any:
    """Returns a tree whose floating-point arrays are of another type."""
    return jax.tree.map(lambda leaf: leaf.astype(kind) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree)


def build_model(config: ModelConfig, task: Task) -> LinenModel:
    """Builds the model a configuration describes, for a task's tokens, classes and length."""
    match config:
        case BertConfig():
            return LinenModel(Bert(config, task.vocabulary, task.length), config.compute)
        case Gpt2Config():
            last_only = task.predicts == "example"
            module = Gpt2(config, task.vocabulary, task.num_classes, task.length, last_only)
            return LinenModel(module, config.compute)
        case MlpConfig():
            return LinenModel(Mlp(config.widths, task.num_classes), config.compute)


def num_parameters(params: Params) -> int:
    """Returns the number of scalars in a pytree of arrays."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
