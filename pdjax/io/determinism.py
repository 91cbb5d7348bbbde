"""The same bits on GPUs, whenever a program is compiled."""

import json
import os
from typing import Any

FLAG = "--xla_gpu_deterministic_ops"


def ask_for_the_same_bits(given: str, experiment: Any = None) -> None:
    """Has XLA compile the same program for a GPU every time; to be called before any device is used.

    Called twice: configurations may use a device while they are loaded, and what they say is known after that.

    By default XLA times several kernels for each operation and takes the fastest, which is another one on another day:
    two runs of one configuration on an H200 gave other bits (docs/results/accelerator). Whoever sets the flag in
    ``XLA_FLAGS``, to true or to false, decides.

    Args:
      given: ``XLA_FLAGS`` as the user set it.
      experiment: settings, once they are known. Where any of them says ``bfloat16`` the default stays: XLA of jax 0.11
        cannot run a program so that holds two equal backward passes of cuDNN's attention, as models of several layers
        do.
    """
    from pdjax.settings import plain  # with pydantic: who asks for help need not wait

    decided = FLAG in given or (experiment is not None and '"bfloat16"' in json.dumps(plain(experiment)))
    os.environ["XLA_FLAGS"] = given if decided else f"{given} {FLAG}=true".strip()
