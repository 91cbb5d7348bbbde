"""Accelerators one does not hold: their published peaks, and devices to compile for.

Peaks are of one chip, dense, from the vendors' data sheets, by the type in which a model computes
(``pdjax.models.precision``). TPUs multiply in bfloat16 alone: float32 takes six passes, ``tf32`` three.
"""

import dataclasses
import os
import re
from collections.abc import Sequence
from typing import Any

import jax

from pdjax.errors import UserError
from pdjax.models.precision import Compute

TPU_ENVIRONMENT = {
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",  # any will do: it keeps libtpu from looking for one
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_LOG_DIR": "disabled",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # a second process would die on a lock file
}


@dataclasses.dataclass(frozen=True)
class Chip:
    """What one chip can do."""

    memory: int  # bytes
    bandwidth: float  # bytes per second to its memory
    products: dict[Compute, float]  # floating-point operations per second in matrix products, by type
    links: float  # bytes per second to other chips, all links together
    kernel: float  # seconds that a kernel takes at least, however little it does; not published, but a guess


GIB = 2**30


def _passes(bfloat16: float) -> dict[Compute, float]:
    return {"bfloat16": bfloat16, "tf32": bfloat16 / 3, "float32": bfloat16 / 6}


CHIPS = {
    "v4": Chip(32 * GIB, 1.228e12, _passes(275e12), 3.0e11, 1e-6),
    "v5e": Chip(16 * GIB, 8.19e11, _passes(197e12), 2.0e11, 1e-6),
    "v5p": Chip(95 * GIB, 2.765e12, _passes(459e12), 6.0e11, 1e-6),
    "v6e": Chip(32 * GIB, 1.64e12, _passes(918e12), 4.48e11, 1e-6),
    "a100": Chip(80 * 10**9, 2.039e12, {"bfloat16": 312e12, "tf32": 156e12, "float32": 19.5e12}, 6.0e11, 3e-6),
    "h100": Chip(80 * 10**9, 3.35e12, {"bfloat16": 989e12, "tf32": 494e12, "float32": 67e12}, 9.0e11, 3e-6),
    "h200": Chip(141 * 10**9, 4.8e12, {"bfloat16": 989e12, "tf32": 494e12, "float32": 67e12}, 9.0e11, 3e-6),
}


_KINDS = {"tpu v5 lite": "v5e", "tpu v5": "v5p", "tpu v6 lite": "v6e"}
"""What TPUs call themselves that are sold under another name; that of v4 is in its own."""


def chip_of(device: Any) -> Chip | None:
    """Returns what a device that is here can do, by the name it gives itself; None if no such chip is listed."""
    kind: str = device.device_kind.lower()
    # Devices call themselves more than that, such as "NVIDIA H100 80GB HBM3".
    return next((chip for name, chip in CHIPS.items() if name in _KINDS.get(kind, kind)), None)


_LIMITS = """
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  registers_per_core_limit: 65536 registers_per_block_limit: 65536 shared_memory_per_block: 49152"""

GPUS = {
    "a100": f"""gpu_device_info {{ {_LIMITS}
  core_count: 108 fpus_per_core: 64 memory_bandwidth: 2039000000000 l2_cache_size: 41943040 clock_rate_ghz: 1.41
  device_memory_size: 84987740160 shared_memory_per_core: 167936 shared_memory_per_block_optin: 166912
  cuda_compute_capability {{ major: 8 minor: 0 }} }}
platform_name: "CUDA" dnn_version_info {{ major: 9 minor: 10 }} device_description_str: "NVIDIA A100-SXM4-80GB" """,
    "h100": f"""gpu_device_info {{ {_LIMITS}
  core_count: 132 fpus_per_core: 128 memory_bandwidth: 3350000000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98
  device_memory_size: 84942979072 shared_memory_per_core: 233472 shared_memory_per_block_optin: 232448
  cuda_compute_capability {{ major: 9 minor: 0 }} }}
platform_name: "CUDA" dnn_version_info {{ major: 9 minor: 10 }} device_description_str: "NVIDIA H100 80GB HBM3" """,
    "h200": f"""gpu_device_info {{ {_LIMITS}
  core_count: 132 fpus_per_core: 128 memory_bandwidth: 4800000000000 l2_cache_size: 62914560 clock_rate_ghz: 1.98
  device_memory_size: 150754820096 shared_memory_per_core: 233472 shared_memory_per_block_optin: 232448
  cuda_compute_capability {{ major: 9 minor: 0 }} }}
platform_name: "CUDA" dnn_version_info {{ major: 9 minor: 10 }} device_description_str: "NVIDIA H200" """,
}
"""GpuTargetConfig text protos, from which XLA compiles for GPUs that are not there."""


@dataclasses.dataclass(frozen=True)
class Topology:
    """Devices of one kind, present or not."""

    name: str
    kind: str  # a key of CHIPS
    devices: Sequence[Any]

    @property
    def chip(self) -> Chip:
        """What each of them can do."""
        return CHIPS[self.kind]


def open_topology(name: str) -> Topology:
    """Returns devices to compile for: ``v5e:2x4``, ``v4:2x2x2`` (TPUs), ``h100x8``, ``a100x1``, ``h200x8`` (GPUs).

    Raises:
      UserError: no such hardware is known, or the compiler for it is not installed.
    """
    tpu = re.fullmatch(r"(v4|v5e|v5p|v6e):(\d+(?:x\d+){1,2})", name)
    gpu = re.fullmatch(r"(a100|h100|h200)x(\d+)", name)
    if tpu is None and gpu is None:
        tpus, gpus = ", ".join(sorted({*CHIPS} - {*GPUS})), ", ".join(GPUS)
        raise UserError(
            f"--topology like v5e:2x4 (TPUs of {tpus}, and their shape) or h100x8 (of {gpus}, and how many)",
            repr(name),
            "leave it out to plan for the devices that are here",
        )
    jax.config.update("jax_enable_compilation_cache", False)  # it cannot read back programs for absent devices
    try:
        if tpu is not None:
            return Topology(name, tpu[1], _tpus(tpu[1], tpu[2]))
        assert gpu is not None
        return Topology(name, gpu[1], _gpus(gpu[1], int(gpu[2])))
    except (RuntimeError, ValueError, ImportError) as error:  # what jax raises where the plugin or the shape is missing
        first = str(error).splitlines()[0][:300]
        remedy = "install the compilers (pip install -e '.[aot]') and see docs/scale.md for shapes that exist"
        raise UserError(f"the topology {name}", f"{type(error).__name__}: {first}", remedy) from error


def _tpus(kind: str, shape: str) -> Sequence[Any]:
    from jax.experimental import topologies

    for variable, value in TPU_ENVIRONMENT.items():
        # What the user has set stays.
        os.environ.setdefault(variable, value)
    options: dict[str, Any] = {"chip_config_name": "megacore"} if kind == "v4" else {}
    if set(shape.split("x")) == {"1"}:
        options["chips_per_host_bounds"] = (1, 1, 1)
    return topologies.get_topology_desc(platform="tpu", topology_name=f"{kind}:{shape}", **options).devices


def _gpus(kind: str, count: int) -> Sequence[Any]:
    from jax.experimental import topologies

    # Without a GPU cuDNN may be missing, without which jax would not register the compiler. Nothing is run.
    os.environ.setdefault("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")
    return topologies.get_topology_desc(
        platform="cuda", topology_name=kind, target_config=GPUS[kind], topology=f"1x1x{count}"
    ).devices
