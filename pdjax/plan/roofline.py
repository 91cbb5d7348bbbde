"""The time of a step from its work and the peaks of a chip."""

from collections.abc import Sequence

from pdjax.models.precision import Compute
from pdjax.plan.hardware import Chip
from pdjax.plan.hlo import Work

EFFICIENCY = {"compute": 0.4, "memory": 0.7, "links": 0.7}
"""Shares of the published peaks that a step is taken to reach."""


def roofline(products: Sequence[tuple[Compute, float]], work: Work, chip: Chip) -> tuple[float, str]:
    """Returns a step's seconds on one device and what bounds them: the slowest of its parts, as if all overlapped.

    Args:
      products: floating-point operations in matrix products, by the type of their operands.
      work: of the step.
      chip: the device.
    """
    parts = {
        "compute": sum(count / (chip.products[kind] * EFFICIENCY["compute"]) for kind, count in products),
        "memory": work.traffic / (chip.bandwidth * EFFICIENCY["memory"]),
        "links": work.collective_bytes / (chip.links * EFFICIENCY["links"]),
        "kernels": work.kernels * chip.kernel,
    }
    bound = max(parts, key=lambda part: parts[part])
    return parts[bound], bound
