"""Folders of several checkpoints: which steps are found in them, and what an audit finds."""

import functools
import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pdjax.stages.auditing import audit_source
from pdjax.weights.history import history_of
from pdjax.weights.series import series_of
from wild.case import Case, Group
from wild.models import GPT2, Model, changed, weights, write
from wild.tokenized import TOKENS
from wild.writing import BIN, SAFETENSORS, write_safetensors

# Which checkpoints


def steps() -> Group:
    """Returns cases of names."""
    about = "What is in a folder, and the steps that are found, in the order of an import."
    return Group("Series: names and folders", about, [*_read(), *_refused()])


_READ: tuple[tuple[str, ...], ...] = (
    ("step_20k", "step-100k", "step3000"),
    ("checkpoint-500", "checkpoint-1000", "checkpoint-50"),
    ("iter_0000500", "iter_0001000"),
    ("global_step1000", "global_step20"),
    ("pythia-70m-step1000", "pythia-70m-step512"),
    ("multiberts-seed_0-step_20k", "multiberts-seed_0-step_2000k"),
    ("step1000-tokens4B", "step2000-tokens8B"),
    ("step_1.5M", "step_2M"),
    ("epoch=3-step=500", "epoch=4-step=600"),
    ("step=5", "step.7"),
    ("step1", "step2", "main"),
)
_BAD: tuple[tuple[str, ...], ...] = (
    ("step_20k", "step20000"),
    ("seed_0-step_5", "seed_1-step_5"),
    ("stage1-step5", "stage2-step5"),
    ("step_10", "epoch-3"),
    ("epoch-1", "epoch-2"),
    ("step_10", "final"),
    ("step_10", "500"),
    ("step_10", "step_x5"),
    ("step_10", "step_1_000"),
    ("step_10", "step_1.5"),
    ("step_10", "step-1,000"),
    ("step_10", "tmp-checkpoint-20"),
)


def _read() -> Iterator[Case]:
    for names in _READ:
        yield Case(_listed(names), functools.partial(_steps, names=names))
    yield Case("checkpoints and the final model around them, with its `trainer_state.json`", _trained)
    yield Case("the hub's cache: references step3000 and step512 of one model", _references)
    yield Case("the hub's cache: models that differ in their steps", _models)


def _refused() -> Iterator[Case]:
    for names in _BAD:
        yield Case(_listed(names), functools.partial(_steps, names=names), refused=True)
    yield _folder("an empty folder", lambda folder: None)
    yield _folder("no folder", lambda folder: folder.rmdir())
    yield _folder("one model without a step", lambda folder: _touch(folder))
    yield _folder(
        "a checkpoint without weights", lambda folder: (_touch(folder / "step_1"), (folder / "step_2").mkdir())
    )
    yield _folder(
        "a checkpoint whose download is not finished",
        lambda folder: (_touch(folder / "step_1"), _touch(folder / "step_2", f"{SAFETENSORS}.incomplete")),
    )
    yield _folder(
        "a link that leads nowhere", lambda folder: (_touch(folder / "step_1"), (folder / "step_2").symlink_to("gone"))
    )
    yield _folder(
        "several files of weights in one folder",
        lambda folder: (_touch(folder, "step_1.safetensors"), _touch(folder, "step_2.safetensors")),
    )
    for what, state in {"cut": '{"global_step', "without its step": "{}", "of step -1": '{"global_step": -1}'}.items():
        yield _folder(f"a `trainer_state.json` {what}", lambda folder, state=state: _with_state(folder, state))
    for what, history in {
        "that is no list": 5, "with a loss in text": [{"step": 1, "loss": "2"}], "with a loss that is no number": [
            {"step": 1, "loss": 2.0}, {"step": 2, "loss": math.nan}],
        "with a step in text": [{"step": "1", "loss": 2.0}],
    }.items():  # fmt: skip
        state = json.dumps({"global_step": 2, "log_history": history})
        yield _folder(f"a log_history {what}", lambda folder, state=state: _with_state(folder, state))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _touch(folder: Path, name: str = SAFETENSORS) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).touch()


def _found(source: Path) -> str:
    series = series_of(source)
    history_of(series)
    return f"steps {', '.join(f'{checkpoint.step:,}' for checkpoint in series)}"


def _steps(folder: Path, names: Sequence[str]) -> str:
    for name in names:
        _touch(folder / name)
    return _found(folder)


def _folder(what: str, make: Callable[[Path], object]) -> Case:
    def act(folder: Path) -> str:
        make(folder)
        return _found(folder)

    return Case(what, act, refused=True)


def _with_state(folder: Path, state: str) -> None:
    for name in ("checkpoint-1", "checkpoint-2", "."):
        _touch(folder / name, BIN)
        (folder / name / "trainer_state.json").write_text(state)


def _trained(folder: Path) -> str:
    for name in ("checkpoint-50", "checkpoint-100", "."):
        _touch(folder / name)
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": 120, "log_history": []}))
    return _found(folder)


def _cached(model: Path, **commits: str) -> None:
    (model / "refs").mkdir(parents=True)
    for reference, commit in commits.items():
        (model / "refs" / reference).write_text(commit)
        _touch(model / "snapshots" / commit)


def _references(folder: Path) -> str:
    _cached(folder / "models--owner--name", step3000="aaa", step512="bbb", main="aaa")
    return _found(folder / "models--owner--name")


def _models(folder: Path) -> str:
    for step in ("20k", "100k"):
        _cached(folder / f"models--owner--name-step_{step}", main="aaa")
    return _found(folder)


# Audits

_EVERY = 100
_COUNT = 16
_STEPS = tuple(range(_EVERY, _EVERY * _COUNT + 1, _EVERY))
Series = dict[int, dict[str, np.ndarray]]


def audits() -> Group:
    """Returns cases of series whose names are right."""
    about = (
        f"Folders step_{_STEPS[0]} to step_{_STEPS[-1]:,} of {_COUNT} checkpoints, whose weights move as a "
        "training's do: from a start, towards an end, with noise that adds up. "
        "Then one thing is wrong with them, under names that are right."
    )
    return Group("Audits", about, list(_audits()))


@functools.cache
def _path(seed: int) -> tuple[dict[str, np.ndarray], ...]:
    """Returns weights that move like a training's."""
    rng = np.random.default_rng(seed)
    start, end = weights(_MODEL, 10 + seed), weights(_MODEL, 20 + seed)
    drifts = {name: np.zeros_like(array) for name, array in start.items()}
    path = []
    for i in range(_COUNT):
        share = np.float32(1 - 0.8**i)
        for name in drifts:
            drifts[name] = drifts[name] + (rng.integers(-50, 51, start[name].shape) / 1000).astype(np.float32)
        # The head is the embedding.
        moved = {name: start[name] + share * (end[name] - start[name]) + drifts[name] for name in start}
        path.append(moved | {"lm_head.weight": moved["transformer.wte.weight"]})
    return tuple(path)


_MODEL: Model = changed(GPT2, num_layers=1)


def _sound(seed: int = 0) -> Series:
    return dict(zip(_STEPS, _path(seed), strict=True))


def _audits() -> Iterator[Case]:
    ours, other = _sound(), _sound(1)
    yield _audit("a sound series", ours, ())
    yield _audit("late weights under early names", ours | {200: ours[1300], 500: ours[1500]}, ("duplicates",))
    yield _audit(
        "all from one step on are the last", ours | {s: ours[1600] for s in _STEPS if s > 900}, ("duplicates",)
    )
    yield _audit("two that are swapped", ours | {300: ours[900], 900: ours[300]}, ("order",))
    yield _audit("one of another seed", ours | {800: other[800]}, ("other run",))
    yield _audit("another seed by turns", ours | {s: other[s] for s in _STEPS[1::2]}, ("other run",))
    yield _audit("the second half is of another run", ours | {s: other[s] for s in _STEPS if s > 800}, ("other run",))
    yield _audit("two steps are missing", {s: a for s, a in ours.items() if s not in (600, 1100)}, ("missing steps",))
    stale = {n: ours[700][n] if ".mlp." in n else a for n, a in ours[800].items()}
    yield _audit("a shard of the checkpoint before", ours | {800: stale}, ("stale tensors",))
    half = {name: array.astype(np.float16) for name, array in ours[800].items()}
    yield _audit("one in float16", ours | {800: half}, ("dtypes",))
    yield _audit("one of other shapes", ours | {800: weights(changed(_MODEL, width=16))}, ("unreadable",))
    yield _audit("one of two layers", ours | {800: weights(GPT2)}, ("unreadable",))
    lacking = {name: array for name, array in ours[800].items() if ".ln_f." not in name}
    yield _audit("one lacks a norm", ours | {800: lacking}, ("unreadable",))
    nan = ours[800] | {"transformer.ln_f.bias": np.full(8, np.nan, np.float32)}
    yield _audit("one is not finite", ours | {800: nan}, ("unreadable",))
    for what, damage in {
        "one is cut": lambda folder: _cut(folder / "step_800" / SAFETENSORS),
        "one is empty": lambda folder: (folder / "step_800" / SAFETENSORS).write_bytes(b""),
        "one is a pointer of git LFS": lambda folder: (folder / "step_800" / SAFETENSORS).write_bytes(
            b"version https://git-lfs.github.com/spec/v1\n"
        ),
        "one has no config.json": lambda folder: (folder / "step_800" / "config.json").unlink(),
        "one has another model_type": lambda folder: (folder / "step_800" / "config.json").write_text(
            json.dumps({"model_type": ["gpt2"]})
        ),
        "one has a damaged tokenizer": lambda folder: (folder / "step_800" / "vocab.txt").write_text("1\n\n2"),
        "one has a tensor of 100 axes": lambda folder: write_safetensors(
            folder / "step_800" / SAFETENSORS, {"wte.weight": np.ones(1, np.float32)},
            {"wte.weight": {"dtype": "F32", "shape": [1] * 100, "data_offsets": [0, 4]}},
        ),
    }.items():  # fmt: skip
        yield _audit(what, ours, ("unreadable",), damage)
    yield _audit("one has another tokenizer", ours, ("vocabularies",), _other_tokens)
    yield _audit("the losses of a training", ours, (), functools.partial(_losses, jump=None))
    yield _audit("a loss that jumps", ours, ("loss",), functools.partial(_losses, jump=800))


def _audit(
    what: str, series: Series, kinds: tuple[str, ...], damage: Callable[[Path], object] = lambda folder: None
) -> Case:
    """A case in which an audit has to find these kinds and no others."""

    def act(folder: Path) -> str:
        for step, tensors in series.items():
            write(folder / f"step_{step}", _MODEL, tensors)
        damage(folder)
        findings = audit_source(folder).findings
        text = "; ".join(map(str, findings)) or "nothing was found"
        assert {finding.kind for finding in findings} == set(kinds), f"{', '.join(kinds)} expected: {text}"
        assert text.isprintable()
        return text

    return Case(what, act)


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def _other_tokens(folder: Path) -> None:
    for step in _STEPS:
        tokens = TOKENS if step != 800 else ("2", "1", *TOKENS[2:])
        (folder / f"step_{step}" / "vocab.txt").write_text("\n".join(tokens))


def _losses(folder: Path, jump: int | None) -> None:
    log: list[dict[str, Any]] = [
        {"step": step, "eval_loss": 5.0 if step == jump else 2 * 0.9 ** (step / 100)} for step in _STEPS
    ]
    state = {"global_step": _STEPS[-1], "log_history": log}
    (folder / f"step_{_STEPS[-1]}" / "trainer_state.json").write_text(json.dumps(state))
