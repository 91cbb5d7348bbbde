"""What a working directory holds, as sorted lines ``settings = value``, to compare it before and after a change.

::

    python tests/fingerprint.py WORKDIR          # prints the lines
    python tests/fingerprint.py BEFORE AFTER     # prints those that differ; exit code 1 if any do

``BEFORE`` and ``AFTER`` are working directories, outputs that were saved, or directories of those (``*.txt``, as
``tests/fingerprint_runs.py`` leaves them). The lines hold

- the SHA-256 of every leaf of teachers' and students' checkpoints, and of the last training state of every run;
- every metric as its (sum, count), every column of a probe and what adaptive curricula go on by, as hexadecimal floats:
  all bits;
- selections, curricula, and where the runs ended, as integers;
- the versions and devices that it was begun with: where these differ, bits may for no other reason.

A replica is known by its settings: role, strategy, budget and what ``run.json`` says of it (seed, learning rate, loss),
never by its place in a sweep or by the name of a directory. Strategies that share a run have lines of their own, the
same as they would alone. What differs without meaning has none: clocks, identities, reasons in words, the report.

Only files are read, and nothing of pdjax is imported: one script reads what the code before and after has left.
"""

import argparse
import hashlib
import itertools
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorstore as ts

RENAMED: dict[str, str] = {
    "lessons": "measured",  # the split of metrics.jsonl
}
"""What moved: old words of a line's settings, and what they are now, in any order of directories and outputs.

Words are whole: between spaces, slashes and equals signs; several are one entry with what stands between them, as in
``"params/decoder_bias": "params/decoder/bias"`` or ``"temperature=0": ""``, which drops a setting. New words hold no
old one: the table serves both sides of a comparison, and what is renamed already stays as it is.
"""

DRIVERS = {".zarray": "zarr", "zarr.json": "zarr3"}
"""How tensorstore reads an array that lies beside a file of this name."""

Lines = Iterator[tuple[str, str]]


class Run(NamedTuple):
    """A run's directory, what ``run.json`` says of it, and how each of its replicas is known."""

    directory: Path
    description: Mapping[str, Any]
    replicas: Sequence[Sequence[str]]  # by strategy, for those that have the replica's loss

    def lines(self, replica: int, key: str, value: str) -> Lines:
        """Yields the lines of a value that belongs to a replica."""
        yield from ((f"{name} {key}", value) for name in self.replicas[replica])


def read(path: Path) -> dict[str, str]:
    """Reads the lines of a working directory, of a saved output, or of a directory of those, in words of today.

    Raises:
      ValueError: there are no such files, two values have the same settings, or ``RENAMED`` is ambiguous.
    """
    for new in RENAMED.values():
        if renamed(new) != new:
            raise ValueError(f"expected new words in RENAMED without old ones; {new!r} has an old one")
    if (path / "config.json").exists():
        lines = _experiment(path)
    elif path.is_dir():
        saved = sorted(path.glob("*.txt"))
        lines = ((f"{file.stem}: {key}", value) for file in saved for key, value in _saved(file))
    else:
        lines = _saved(path)
    values: dict[str, str] = {}
    for key, value in lines:
        name = renamed(key)
        if name in values:
            raise ValueError(f"expected one value of {name!r}; found two in {path}")
        values[name] = value
    if not values:
        raise ValueError(f"expected a working directory or saved lines; found none in {path}")
    return dict(sorted(values.items()))


def renamed(key: str) -> str:
    """Returns a line's settings in the words of today."""
    for old, new in RENAMED.items():
        key = re.sub(rf"(?<![^ /=]){re.escape(old)}(?![^ /=])", new, key)
    return " ".join(key.split())


def differences(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Returns the lines of which there is another or none on the other side, with a sign for theirs."""
    sides = {"-": before, "+": after}
    return [
        f"{sign} {key} = {lines[key]}"
        for key in sorted({*before, *after})
        for sign, lines in sides.items()
        if key in lines and before.get(key) != after.get(key)
    ]


def _saved(path: Path) -> Lines:
    for line in path.read_text().splitlines():
        key, _, value = line.partition(" = ")
        yield key, value


def _experiment(directory: Path) -> Lines:
    """Yields the lines of an experiment, then those of its ablations' variants."""
    config = _json(directory / "config.json")
    if (directory / "environment.json").exists():
        yield from _environment(_json(directory / "environment.json"))
    for run in _runs(directory, config):
        yield from _run(run)
    yield from _probes(directory / "probes", None)
    if (directory / "selection.json").exists():
        yield from _selection(directory)
    for inner in sorted((directory / "ablations").glob("*/*")):
        if (inner / "config.json").exists():
            prefix = _word(f"ablation={inner.parent.name}/{inner.name}")
            yield from ((f"{prefix} {key}", value) for key, value in _experiment(inner))


def _environment(recorded: Mapping[str, Any]) -> Lines:
    """Yields what else the bits depend on: the machine, and the versions of all but the code that is compared."""
    parts = {"cores": recorded["cores"], "device": recorded["device"], **recorded["versions"]}
    yield from ((f"environment {name}", str(value)) for name, value in parts.items() if name != "pdjax")


def _runs(directory: Path, config: Mapping[str, Any]) -> Iterator[Run]:
    """Yields an experiment's runs; a teacher behind a link is another experiment's."""
    for path in sorted(directory.rglob("run.json")):
        if "ablations" not in path.relative_to(directory).parts and not path.parent.is_symlink():
            description = _json(path)
            names = [_names(description, replica, config) for replica in description["replicas"]]
            yield Run(path.parent, description, names)


def _names(description: Mapping[str, Any], replica: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """Returns what a replica is known by: for each strategy that it belongs to, or once where there are none."""
    role, strategies = description["role"], config["strategies"]
    by_name = strategies.items() if isinstance(strategies, Mapping) else ((s["name"], s) for s in strategies)
    losses, loss = {name: _loss(strategy) for name, strategy in by_name}, _loss(replica)
    parts = {"seed": replica["seed"], "learning_rate": replica["learning_rate"], **loss}
    settings = " ".join(f"{name}={_number(value)}" for name, value in sorted(parts.items()))
    if role == "student":
        heads = [f"student strategy={name}" for name in description["strategies"] if losses[name] == loss]
    else:
        heads = ["teacher" if role == "teacher" else _word(f"{role}={description['name']}")]
    return [f"{head} budget={description['budget']} {settings}" for head in heads]


def _loss(owner: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the loss of a strategy or a replica; that of the labels has no temperature."""
    loss = owner.get("loss", owner)  # numbers of their own, before losses were classes
    if loss.get("class") == "pdjax.distill:Labels" or loss.get("label_weight") == 1:
        return {"temperature": 0.0, "label_weight": 1.0}
    numbers = {name: value for name, value in loss.items() if name not in ("class", "name")}
    if "loss" in owner:
        return numbers if loss["class"] == "pdjax.distill:Distillation" else {**numbers, "loss": loss["class"]}
    return {name: loss[name] for name in ("temperature", "label_weight")}


def _run(run: Run) -> Lines:
    """Yields a run's curricula, metrics, checkpoints, last state, end and probes."""
    count = len(run.replicas)
    adapted = run.directory / "curriculum.json"
    starts = _json(adapted)["starts"] if adapted.exists() else [run.description["starts"]] * count
    for replica in range(count):
        yield from run.lines(replica, "curriculum starts", _compact(starts[replica]))
        yield from run.lines(replica, "curriculum teacher_steps", _compact(run.description["teacher_steps"]))
    for record in _records(run.directory / "metrics.jsonl"):
        split, step, replica = (record.pop(name) for name in ("split", "step", "replica"))
        for name, value in record.items():
            yield from run.lines(replica, f"{split} step={step} {name}", _floats(value))
    for path in sorted(run.directory.glob("*/store.json")):
        yield from _checkpoints(run, path.parent)
    if (run.directory / "result.json").exists():
        for replica in range(count):
            yield from run.lines(replica, "end step", _compact(_json(run.directory / "result.json")["step"]))
    yield from _probes(run.directory / "probes", run)


def _checkpoints(run: Run, store: Path) -> Lines:
    """Yields the leaves of a store; of training states the last one's, the only one that killed runs have in common."""
    paths = [path for path in (store / "checkpoints").iterdir() if path.name.isdigit()]
    paths.sort(key=lambda path: int(path.name))
    training = _json(store / "store.json").get("training")  # a trajectory of one teacher says whose it is
    seeds = [replica["seed"] for replica in run.description["replicas"]]
    kind, chosen = ("state", paths[-1:]) if store.name == "state" else ("checkpoint", paths)
    for path in chosen:
        for name, array in arrays(path / "state"):
            if training is not None:
                leaves = {seeds.index(training["seed"]): array}
            else:  # all replicas have the same number of steps
                leaves = {replica: array[replica] if array.ndim else array for replica in range(len(seeds))}
            for replica, leaf in leaves.items():
                key = f"{kind} step={path.name} {name} dtype={leaf.dtype} shape={_shape(leaf)}"
                yield from run.lines(replica, key, hashlib.sha256(np.ascontiguousarray(leaf).tobytes()).hexdigest())


def arrays(directory: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the arrays that Orbax has written to a directory, by their path in the tree."""
    base = {"driver": "ocdbt", "base": f"file://{directory.absolute()}/"}
    opened = {}
    for key in ts.KvStore.open(base).result().list().result():
        name, _, file = key.decode().rpartition("/")
        if file in DRIVERS:
            opened[name] = ts.open({"driver": DRIVERS[file], "kvstore": base | {"path": f"{name}/"}}, read=True)
    for name, future in sorted(opened.items()):
        yield name.replace(".", "/"), future.result().read().result()


def _probes(directory: Path, run: Run | None) -> Lines:
    """Yields what was measured on a run's students, by replica, or on teachers, by seed; and what the columns are."""
    for path in sorted(directory.glob("*.jsonl")):
        for record in _records(path):
            step = record.pop("step")
            who = record.pop("seed" if run is None else "replica")
            for name, value in record.items():
                key = f"probe {path.stem} step={step} {name} shape={_shape(value)}"
                if run is None:
                    yield f"teacher seed={who} {key}", _floats(value)
                else:
                    yield from run.lines(who, key, _floats(value))
    for path in sorted(directory.glob("*.json")):
        listed = {name: value for name, value in _json(path).items() if name != "identity"}
        by_file = listed.pop("listed", {})
        flat = {(path.stem, name): value for name, value in listed.items()}
        for probe, values in by_file.items():  # monomials had a file of their own
            flat |= {("monomials" if probe == "monomials" else path.stem, name): v for name, v in values.items()}
        for (stem, name), value in flat.items():
            key = f"probe {stem} {name}"
            owners = [("teacher",)] if run is None else run.replicas
            yield from ((f"{owner} {key}", _compact(value)) for owner in itertools.chain(*owners))


def _selection(directory: Path) -> Lines:
    """Yields the integers of ``selection.json``; those of several teachers by their seeds."""
    selection = _json(directory / "selection.json")
    seeds = [replica["seed"] for replica in _json(directory / "teacher" / "run.json")["replicas"]]
    by_seed = {f"seed={seed}": value for seed, value in zip(seeds, selection.pop("transitions"), strict=True)}
    yield from _integers("selection", selection | {"transitions": by_seed})


def _integers(key: str, value: Any) -> Lines:
    """Yields what is no text in nested records, with their names joined."""
    if isinstance(value, list) and any(isinstance(part, dict) for part in value):
        value = dict(enumerate(value))
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _integers(f"{key} {_word(str(name))}", part)
    elif not isinstance(value, str):
        yield key, _compact(value)


def _json(path: Path) -> Any:
    return _without_digest(json.loads(path.read_text()))


def _records(path: Path) -> list[dict[str, Any]]:
    """Returns the records of a file of JSON lines; there need not be one."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [_without_digest(json.loads(line)) for line in lines]


def _without_digest(value: Any) -> Any:
    """Returns a record without what says that it is as it was written."""
    return {key: part for key, part in value.items() if key != "sha256"}


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _floats(value: Any) -> str:
    """Returns a number, or the numbers of nested lists in their order, as hexadecimal floats."""
    return " ".join(float(number).hex() for number in np.ravel(np.array(value, np.float64)).tolist())


def _number(value: float) -> float:
    """Returns an integer for a float that is one: whether it was written as ``1`` or ``1.0`` means nothing."""
    return int(value) if isinstance(value, float) and value == int(value) else value


def _shape(value: Any) -> str:
    return "x".join(map(str, np.shape(value))) or "scalar"


def _word(text: str) -> str:
    """Returns a name that may have spaces as one word."""
    return text.replace(" ", "_")


def main() -> int:
    """Prints the lines of one directory, or the differences of two; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, metavar="WORKDIR")
    parser.add_argument("after", type=Path, nargs="?", help="what to compare it with")
    arguments = parser.parse_args()
    try:
        sides = [read(path) for path in (arguments.before, arguments.after) if path is not None]
    except (OSError, ValueError) as error:
        parser.error(str(error))  # with exit code 2: nothing was compared
    lines = differences(*sides) if len(sides) > 1 else [f"{key} = {value}" for key, value in sides[0].items()]
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return int(len(sides) > 1 and len(lines) > 0)


if __name__ == "__main__":
    sys.exit(main())
