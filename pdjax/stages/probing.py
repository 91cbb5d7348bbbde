"""The configured probes of an experiment, compiled, and how they are run over many checkpoints."""

import functools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from pdjax.config import Config, ModelConfig
from pdjax.errors import UserError
from pdjax.interrupt import Interrupt, Interrupted
from pdjax.models import build_model
from pdjax.probes.agreement import agreement
from pdjax.probes.attention import attention_probe
from pdjax.probes.monomials import choose_monomials, correlations
from pdjax.probes.ngrams import ngram_percentiles
from pdjax.probes.nonterminals import nonterminal_accuracy, probed_levels
from pdjax.processes import is_first, meet
from pdjax.progress import Progress
from pdjax.records import read_json, write_json
from pdjax.tasks import build_task
from pdjax.tasks.parity import ParityTask
from pdjax.tasks.pcfg import PcfgLanguageTask, PcfgTask
from pdjax.types import Params, ratio

Probe = Callable[[Params], list[dict[str, Any]]]
"""From the stacked parameters of several models to what is recorded of each."""

STRINGS = (PcfgTask, PcfgLanguageTask)

MOST_AT_ONCE = 8
"""Models of a few megabytes that are measured together."""


def string_probes(config: Config, model: ModelConfig, teacher: Params) -> dict[str, Probe]:
    """Returns the configured probes of models of strings by name; empty for other tasks.

    Args:
      config: of the experiment.
      model: what is measured.
      teacher: the final one, for the agreement with it.
    """
    task, probes, seed = build_task(config.task), config.probes, jnp.int32(config.probes.seed)
    found: dict[str, Probe] = {}
    if not isinstance(task, STRINGS):
        return found
    measured, teaching = build_model(model, task), build_model(config.teacher, task)
    if probes.ngrams is not None:
        distances = jax.jit(functools.partial(ngram_percentiles, task, measured, probes.ngrams))
        found["ngrams"] = lambda params: [{"distances": row} for row in _rows(distances(params, seed))]
    if probes.nonterminals is not None:
        read = jax.jit(functools.partial(nonterminal_accuracy, task, measured, probes.nonterminals))
        found["nonterminals"] = lambda params: [{"accuracy": row} for row in _rows(read(params, seed))]
    if probes.agreement is not None:
        compare = jax.jit(functools.partial(agreement, task, measured, teaching, probes.agreement))

        def agree(params: Params) -> list[dict[str, Any]]:
            means = compare(params, teacher, seed)
            pairs = zip(_rows(ratio(means.same)), _rows(ratio(means.divergence)), strict=True)
            return [{"top1": top1, "divergence": divergence} for top1, divergence in pairs]

        found["agreement"] = agree
    return found


def parity_probes(config: Config, directory: Path) -> dict[str, Probe]:
    """Returns the configured probes of teachers of parities by name, having listed the monomials; empty for others."""
    task, found = build_task(config.task), dict[str, Probe]()
    if not isinstance(task, ParityTask):
        return found
    model, seed = build_model(config.teacher, task), jnp.int32(config.probes.seed)
    support = tuple(sorted(j for feature in task.features for j in feature))
    monomials, attention = config.probes.monomials, config.probes.attention
    if monomials is not None:
        chosen = choose_monomials(task.levels, support, task.length, monomials, config.probes.seed)
        write_json(directory / "monomials.json", chosen._asdict())
        measure = jax.jit(functools.partial(correlations, task, model, monomials))
        membership = jnp.asarray(chosen.membership(task.length))
        found["monomials"] = lambda params: [{"correlations": r} for r in _rows(measure(membership, params, seed))]
    if attention is not None:
        look = jax.jit(functools.partial(attention_probe, task, model, attention.num_inputs, support))

        def attend(params: Params) -> list[dict[str, Any]]:
            positions, total = (_rows(part) for part in look(params, seed))
            return [{"positions": p, "support": t} for p, t in zip(positions, total, strict=True)]

        found["attention"] = attend
    return found


def listing(config: Config) -> dict[str, Any]:
    """Returns what the recorded numbers of models of strings belong to: n, percentiles and levels."""
    task, ngrams = build_task(config.task), config.probes.ngrams
    found: dict[str, Any] = {}
    if ngrams is not None:
        found |= {"n": ngrams.n, "percentiles": ngrams.percentiles}
    if config.probes.nonterminals is not None and isinstance(task, STRINGS):
        found |= {"levels": probed_levels(task)}
    return found


def measure_checkpoints(
    directory: Path,
    probes: Mapping[str, Probe],
    steps: Sequence[int],
    load: Callable[[int], Params],
    names: Sequence[Mapping[str, int]],
    at_once: int,
    interrupt: Interrupt,
    progress: Progress,
) -> None:
    """Runs probes on checkpoints and writes a file of lines for each, one line for each checkpoint and model.

    Args:
      directory: of the files.
      probes: by name.
      steps: of the checkpoints.
      load: reads one: the stacked parameters of R models.
      names: what tells the R models apart in the records.
      at_once: models that are measured together, if their number permits.
      interrupt: stops between groups of checkpoints.
      progress: advances by checkpoints.
    """
    lines: dict[str, list[str]] = {name: [] for name in probes}
    group = _group_size(len(steps), max(1, at_once // len(names)))
    for first in range(0, len(steps), group):
        together = steps[first : first + group]
        trees = [load(step) for step in together]
        trees += trees[-1:] * (group - len(trees))  # of the last group, to have the shape of the others
        params = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *trees)
        keys = [{**name, "step": step} for step in together for name in names]
        for name, probe in probes.items():
            records = zip(keys, probe(params)[: len(keys)], strict=True)
            lines[name] += [json.dumps({**key, **record}) + "\n" for key, record in records]
        progress.advance(len(together))
        if interrupt.signal_number is not None:
            raise Interrupted(interrupt.signal_number, "these probes begin again")
    if is_first():
        for name, content in lines.items():
            _write_lines(directory / f"{name}.jsonl", content)


def is_measured(directory: Path, identity: str) -> bool:
    """Whether the probes of these very models are done.

    Raises:
      UserError: the directory holds those of others.
    """
    path = directory / "result.json"
    if not path.exists():
        return False
    if read_json(path)["identity"] != identity:
        raise UserError(
            "probes of this experiment's models",
            f"those of others in {directory}",
            "what they were measured on changed: remove the directory to evaluate them again",
        )
    return True


def finish(directory: Path, identity: str, listed: Mapping[str, Any]) -> None:
    """Says what was measured, and that it is complete."""
    write_json(directory / "result.json", {"identity": identity, **listed})
    meet(f"the probes in {directory} are done")


def _group_size(count: int, most: int) -> int:
    """Returns the largest size, at most ``most``, of groups of one shape that measure at most one checkpoint twice."""
    return max(size for size in range(1, most + 1) if -count % size <= 1)


def _rows(values: Float[Array, "R *rest"] | Int[Array, "R *rest"]) -> list[Any]:
    return np.asarray(values).tolist()


def _write_lines(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text("".join(lines))
    os.replace(partial, path)
