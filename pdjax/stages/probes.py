"""The probe stage: measures the checkpoints of every teacher and keeps the numbers (see ``pdjax.probe_records``)."""

import functools
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pdjax.config import Config, digest_of
from pdjax.errors import UserError
from pdjax.interrupt import Interrupt, Interrupted
from pdjax.models import build_model
from pdjax.probes.attention import attention_probe
from pdjax.probes.monomials import choose_monomials, correlations
from pdjax.processes import is_first, meet
from pdjax.progress import Progress
from pdjax.records import read_json, write_json
from pdjax.stages.programs import teacher_seeds
from pdjax.stages.teacher import open_trajectory, teacher_shape
from pdjax.tasks import build_task
from pdjax.tasks.parity import ParityTask
from pdjax.types import Params

logger = logging.getLogger("pdjax")

Probe = Callable[[Params], list[dict[str, Any]]]
"""From the stacked parameters of several teachers to what is recorded of each."""


def probe_teachers(config: Config, workdir: Path, interrupt: Interrupt) -> None:
    """Evaluates the configured probes on all checkpoints of all teachers, unless that is done.

    Raises:
      UserError: there is no finished teacher, or the directory holds probes of another one.
    """
    directory = workdir / "probes"
    probes = _build_probes(config, directory)
    if not probes:
        return
    if not (workdir / "teacher" / "result.json").exists():
        raise UserError("a finished teacher", f"none in {workdir / 'teacher'}", "run --stage=teacher first")
    stores = [open_trajectory(config, workdir, seed) for seed in teacher_seeds(config)]
    try:
        steps = stores[0].steps()
        digests = [[store.digest(step) for step in steps] for store in stores]
        identity = digest_of({"probes": config.as_dict()["probes"], "teachers": digests})
        if _is_done(directory, identity):
            return
        lines: dict[str, list[str]] = {name: [] for name in probes}
        like = teacher_shape(config)
        progress = Progress("probes", len(steps), unit="checkpoint")
        for step in steps:
            trees = [store.restore(step, like) for store in stores]
            params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
            for name, probe in probes.items():
                for seed, record in zip(teacher_seeds(config), probe(params), strict=True):
                    lines[name].append(json.dumps({"seed": seed, "step": step, **record}) + "\n")
            progress.advance(1)
            if interrupt.signal_number is not None:
                raise Interrupted(interrupt.signal_number, "the probe stage begins again")
        progress.close()
    finally:
        for store in stores:
            store.close()
    if is_first():
        for name, content in lines.items():
            _write_lines(directory / f"{name}.jsonl", content)
    write_json(directory / "result.json", {"identity": identity})
    meet("the probes are done")


def _is_done(directory: Path, identity: str) -> bool:
    path = directory / "result.json"
    if not path.exists():
        return False
    if read_json(path)["identity"] != identity:
        raise UserError(
            "probes of this experiment's teachers",
            f"those of others in {directory}",
            "the teacher changed: remove the directory to evaluate them again",
        )
    return True


def _build_probes(config: Config, directory: Path) -> dict[str, Probe]:
    """Returns the configured probes by name, compiled on first use."""
    task = build_task(config.task)
    probes: dict[str, Probe] = {}
    if not isinstance(task, ParityTask):
        return probes
    model, seed = build_model(config.teacher, task), jnp.int32(config.probes.seed)
    support = tuple(sorted(j for feature in task.features for j in feature))
    monomials, attention = config.probes.monomials, config.probes.attention
    if monomials is not None:
        chosen = choose_monomials(task.levels, support, task.length, monomials, config.probes.seed)
        write_json(directory / "monomials.json", chosen._asdict())
        measure = jax.jit(functools.partial(correlations, task, model, monomials))
        membership = jnp.asarray(chosen.membership(task.length))

        def correlate(params: Params) -> list[dict[str, Any]]:
            return [{"correlations": row.tolist()} for row in np.asarray(measure(membership, params, seed))]

        probes["monomials"] = correlate
    if attention is not None:
        look = jax.jit(functools.partial(attention_probe, task, model, attention.num_inputs, support))

        def attend(params: Params) -> list[dict[str, Any]]:
            positions, total = (np.asarray(part) for part in look(params, seed))
            return [{"positions": p.tolist(), "support": float(t)} for p, t in zip(positions, total, strict=True)]

        probes["attention"] = attend
    return probes


def _write_lines(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text("".join(lines))
    os.replace(partial, path)
