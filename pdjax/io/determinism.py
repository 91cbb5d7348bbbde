"""The same bits on GPUs, whenever a program is compiled."""

import json
import os
from typing import Any

from pdjax.settings import plain

FLAG = "--xla_gpu_deterministic_ops"


def ask_for_the_same_bits(experiment: Any) -> None:
    """Has XLA compile the same program for a GPU every time; to be called before any device is used.

    By default XLA times several kernels for each operation and takes the fastest, which is another one on another day:
    two runs of one configuration on an H200 gave other bits (docs/results/accelerator). Whoever sets the flag in
    ``XLA_FLAGS``, to true or to false, decides.

    Args:
      experiment: settings. Where any of them says ``bfloat16`` the default stays: XLA 0.11 cannot run a program so that
        holds two equal backward passes of cuDNN's attention, as models of several layers do.
    """
    given = os.environ.get("XLA_FLAGS", "")
    if FLAG not in given and '"bfloat16"' not in json.dumps(plain(experiment)):
        os.environ["XLA_FLAGS"] = f"{given} {FLAG}=true".strip()
