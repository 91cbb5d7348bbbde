"""What the probe stages have measured on checkpoints of teachers and students, and how to read it back.

One line for each model and checkpoint; a teacher is named by its ``seed``, a student by the number of its ``replica``::

    probes/monomials.jsonl     {"seed", "step", "correlations": [...]}
    probes/attention.jsonl     {"seed", "step", "positions": [...], "support"}
    probes/ngrams.jsonl        {..., "step", "distances": [measure][n][percentile]}, see ``pdjax.probes.ngrams``
    probes/nonterminals.jsonl  {..., "step", "accuracy": [level]}
    probes/agreement.jsonl     {..., "step", "top1", "divergence"} with the final teacher
    probes/measured.jsonl      of unfinished probes: what each of them has measured on each group of checkpoints so far
    probes/result.json         its presence means that all of it is there; what the numbers belong to, by probe
    students/<run>/probes/     the same of a run's students, step 0 before their training
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from pdjax.io.sealed import read_json, read_lines
from pdjax.probes.ngrams import MEASURES


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
class NgramRecord:
    """How much predictions depend on n-grams: M_robust and M_close of R models at E checkpoints."""

    steps: Int[np.ndarray, "E"]
    n: tuple[int, ...]  # N sizes of n-grams
    percentiles: tuple[int, ...]  # Q of them, over strings and positions
    values: Float[np.ndarray, "E R M N Q"]  # by measure, in the order of ``MEASURES``

    def median(self, measure: Literal["robust", "close"]) -> Float[np.ndarray, "E R N"]:
        """Returns the medians of a measure."""
        return self.percentile(measure, 50)

    def percentile(self, measure: Literal["robust", "close"], percentile: int) -> Float[np.ndarray, "E R N"]:
        """Returns a recorded percentile of a measure."""
        return self.values[:, :, MEASURES.index(measure), :, self.percentiles.index(percentile)]


def read_probe(directory: Path, name: str) -> tuple[list[dict[str, Any]], Mapping[str, Any]]:
    """Reads the lines of a probe, and what its numbers belong to; no lines where not all of it was measured (yet).

    Args:
      directory: the working directory, with what was measured on teachers, or that of a run of students.
      name: of the probe.
    """
    return _records(directory, name), _listed(directory, name)


def read_ngrams(directory: Path) -> NgramRecord | None:
    """Reads the dependence on n-grams; None if it was not measured (yet)."""
    lines, listed = _read_lines(directory, "ngrams"), _listed(directory, "ngrams")
    if lines is None:
        return None
    values = _table(lines, "distances")
    return NgramRecord(np.array(lines[1]), tuple(listed["n"]), tuple(listed["percentiles"]), values)


def read_monomials(workdir: Path) -> MonomialRecord | None:
    """Reads the measured correlations; None if there are none (yet)."""
    lines = _read_lines(workdir, "monomials")
    if lines is None:
        return None
    seeds, steps, _ = lines
    listed = _listed(workdir, "monomials")
    members = tuple(tuple(member) for member in listed["members"])
    values = _table(lines, "correlations")
    return MonomialRecord(seeds, np.array(steps), members, np.array(listed["groups"]), values)


Lines = tuple[tuple[int, ...], Sequence[int], Mapping[tuple[int, int], Mapping[str, Any]]]
"""Names of the models, steps, and the record of each step and model."""


def _read_lines(workdir: Path, name: str) -> Lines | None:
    records = _records(workdir, name)
    if not records:
        return None
    key = "seed" if "seed" in records[0] else "replica"
    # In the order of the records: the first teacher is the one that students learn from.
    models = tuple(dict.fromkeys(record[key] for record in records))
    steps = sorted({record["step"] for record in records})
    return models, steps, {(record["step"], record[key]): record for record in records}


def _table(lines: Lines, field: str) -> Float[np.ndarray, "E R *rest"]:
    models, steps, rows = lines
    return np.array([[rows[step, model][field] for model in models] for step in steps])


def _records(directory: Path, name: str) -> list[dict[str, Any]]:
    """Returns the lines of a probe; none before all of them are written."""
    seal = _result(directory)["records"].get(name)
    probes = directory / "probes"
    return [] if seal is None else read_lines(probes / f"{name}.jsonl", probes, seal).records


def _listed(directory: Path, name: str) -> Mapping[str, Any]:
    """Returns what a probe's numbers belong to."""
    return _result(directory)["listed"].get(name, {})


def _result(directory: Path) -> Mapping[str, Any]:
    """Returns what the probes have ended with."""
    path = directory / "probes" / "result.json"
    # Files are written probe by probe: the result says that all of them are there.
    return read_json(path, made_again=path.parent) if path.exists() else {"records": {}, "listed": {}}
