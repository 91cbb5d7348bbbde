"""What XLA is asked for before it compiles: the same bits on GPUs, and little optimisation for runs of seconds."""

import json
import os
from importlib import metadata, util
from typing import Any

DETERMINISTIC = "--xla_gpu_deterministic_ops"

QUICK = ["--xla_backend_optimization_level=0", "--xla_llvm_disable_expensive_passes=true"]
"""With these a program for CPUs takes half the time to compile, and longer to run."""
if metadata.version("jaxlib").startswith("0.10."):
    QUICK.append("--xla_cpu_use_fusion_emitters=false")  # later versions have no such flag


def quiet_xla() -> None:
    """Leaves out what XLA logs of its own beside exceptions; to be called before the first import of jax.

    Of every cached program jaxlib 0.10 says on CPUs with AVX-512, as an error of 2,000 characters, that preferences of
    LLVM are no features of the CPU (https://github.com/openxla/xla/issues/44565), and runs it. Where there may be an
    accelerator nothing is left out; whoever sets ``TF_CPP_MIN_LOG_LEVEL`` decides.
    """
    if _on_cpus_alone():
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def ask_xla(given: str, experiment: Any = None) -> None:
    """Sets ``XLA_FLAGS``; to be called before any device is used.

    Called twice: configurations may use a device while they are loaded, and what they say is known after that.

    By default XLA times several kernels for each operation of a GPU and takes the fastest, which is another one on
    another day: two runs of one configuration on an H200 gave other bits (docs/results/accelerator). So it is asked not
    to. Whoever sets that flag in ``XLA_FLAGS``, to true or to false, decides.

    Args:
      given: ``XLA_FLAGS`` as the user set it.
      experiment: settings, once they are known. Where any of them says ``bfloat16`` the GPU's default stays: XLA of jax
        0.11 cannot run a program without it that holds two equal backward passes of cuDNN's attention, as models of
        several layers do. With ``loop.optimized`` off, programs for CPUs are compiled quickly.
    """
    from pdjax.settings import plain  # with pydantic: who asks for help need not wait

    flags = [given]
    if DETERMINISTIC not in given and (experiment is None or '"bfloat16"' not in json.dumps(plain(experiment))):
        flags.append(f"{DETERMINISTIC}=true")
    if experiment is not None and not experiment.loop.optimized and _on_cpus_alone():
        flags += QUICK
    os.environ["XLA_FLAGS"] = " ".join(flag for flag in flags if flag)


def _on_cpus_alone() -> bool:
    """Whether JAX will find no accelerator, as far as that is known before it has looked."""
    if platforms := os.environ.get("JAX_PLATFORMS"):
        return platforms == "cpu"
    return not metadata.entry_points(group="jax_plugins") and util.find_spec("libtpu") is None
