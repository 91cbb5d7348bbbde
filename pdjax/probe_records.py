"""What the probe stage has measured on the teachers' checkpoints, and how to read it back.

::

    probes/monomials.json      {"members": [[coordinates], ...], "groups": [...]}, see ``pdjax.probes.monomials``
    probes/monomials.jsonl     one line per teacher and checkpoint: {"seed", "step", "correlations": [...]}
    probes/attention.jsonl     one line per teacher and checkpoint: {"seed", "step", "positions": [...], "support"}
    probes/result.json         its presence means that all of it is there
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from pdjax.records import read_json, read_jsonl


@dataclasses.dataclass(frozen=True)
class MonomialRecord:
    """Correlations of S teachers' predictions with M monomials at E checkpoints."""

    seeds: tuple[int, ...]
    steps: Int[np.ndarray, "E"]
    members: tuple[tuple[int, ...], ...]  # coordinates of each monomial
    groups: Int[np.ndarray, "M"]  # place of the feature (the root's is 0), -1 off the support
    values: Float[np.ndarray, "E S M"]

    @functools.cached_property
    def degrees(self) -> Int[np.ndarray, "M"]:
        """Coordinates of each monomial."""
        return np.array([len(member) for member in self.members])

    @property
    def num_features(self) -> int:
        """How many features the support consists of."""
        return int(self.groups.max(initial=-1)) + 1

    def mean(self, degree: int, group: int | None) -> Float[np.ndarray, "E S"]:
        """Returns the mean correlation with the monomials of a degree: of a group, or of all features (None)."""
        chosen = self.chosen(degree, group)
        return self.values[:, :, chosen].mean(axis=2)

    def chosen(self, degree: int, group: int | None) -> Bool[np.ndarray, "M"]:
        """Returns which monomials have a degree and belong to a group (None: to any feature)."""
        return (self.degrees == degree) & ((self.groups >= 0) if group is None else (self.groups == group))

    def low_degrees(self, highest: int = 3) -> list[int]:
        """Returns the degrees up to ``highest`` that there are both in and off the support."""
        inside, off = set(self.degrees[self.groups >= 0].tolist()), set(self.degrees[self.groups < 0].tolist())
        return sorted(degree for degree in inside & off if degree <= highest)


@dataclasses.dataclass(frozen=True)
class AttentionRecord:
    """Attention of S teachers' last position at E checkpoints: medians over inputs."""

    seeds: tuple[int, ...]
    steps: Int[np.ndarray, "E"]
    positions: Float[np.ndarray, "E S L"]  # to each position
    support: Float[np.ndarray, "E S"]  # to all positions of the support together


def read_monomials(workdir: Path) -> MonomialRecord | None:
    """Reads the measured correlations; None if there are none (yet)."""
    found = _read_lines(workdir, "monomials")
    if found is None:
        return None
    seeds, steps, rows = found
    listed = read_json(workdir / "probes" / "monomials.json")
    members = tuple(tuple(member) for member in listed["members"])
    values = np.array([[rows[step, seed]["correlations"] for seed in seeds] for step in steps])
    return MonomialRecord(seeds, np.array(steps), members, np.array(listed["groups"]), values)


def read_attention(workdir: Path) -> AttentionRecord | None:
    """Reads the measured attention; None if there is none (yet)."""
    found = _read_lines(workdir, "attention")
    if found is None:
        return None
    seeds, steps, rows = found
    positions = np.array([[rows[step, seed]["positions"] for seed in seeds] for step in steps])
    support = np.array([[rows[step, seed]["support"] for seed in seeds] for step in steps])
    return AttentionRecord(seeds, np.array(steps), positions, support)


def _read_lines(
    workdir: Path, name: str
) -> tuple[tuple[int, ...], Sequence[int], dict[tuple[int, int], dict[str, Any]]] | None:
    records = read_jsonl(workdir / "probes" / f"{name}.jsonl")
    if not records or not (workdir / "probes" / "result.json").exists():
        return None
    seeds = tuple(dict.fromkeys(record["seed"] for record in records))
    steps = sorted({record["step"] for record in records})
    return seeds, steps, {(record["step"], record["seed"]): record for record in records}
