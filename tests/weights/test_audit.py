"""Audits of real trainings: nothing is found of sound ones, and every damage is found under names that are right."""

import csv
import functools
import io
import weakref
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest

from pdjax.errors import UserError
from pdjax.report import style
from pdjax.weights.audit import Audited, as_csv, audit, table
from pdjax.weights.audit_figure import draw_audit, save_figure
from pdjax.weights.measures import SAMPLE, measure
from pdjax.weights.stored import StoredTensor

STEPS = (0, 1, 2, 4, 8, 16, 32, 64, *range(100, 1501, 50))
LAST = STEPS[-1]
OPTIMIZERS = {
    "adam": optax.adam(1e-3),
    "fast": optax.adam(2e-2),
    "warm-up": optax.adam(optax.warmup_cosine_decay_schedule(0, 3e-3, 200, LAST)),
    "sgd": optax.sgd(0.2),
}
SEEDS = 2


class Saved(NamedTuple):
    """A checkpoint that a test may change."""

    tensors: dict
    loss: float | None


def init(key):
    keys = jax.random.split(key, 3)
    sizes = ((8, 64), (64, 48), (48, 2))
    weights = {f"w{n}": jax.random.normal(k, s) / s[0] ** 0.5 for n, (k, s) in enumerate(zip(keys, sizes, strict=True))}
    return weights | {f"b{n}": jnp.zeros(s[1]) for n, s in enumerate(sizes)}


def loss(params, key, count):
    """Of the parity of two of eight bits: it stays a while, and drops."""
    bits = jax.random.bernoulli(key, shape=(count, 8)).astype(jnp.float32)
    hidden = bits * 2 - 1
    for n in range(2):
        hidden = jax.nn.relu(hidden @ params[f"w{n}"] + params[f"b{n}"][None])
    logits = hidden @ params["w2"] + params["b2"][None]
    labels = (bits[:, 0] + bits[:, 1]).astype(jnp.int32) % 2
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def train(optimizer):
    """Returns the checkpoints of each seed, with a noisy held-out loss."""

    def chunk(params, state, key, start, end):
        def step(at, carry):
            params, state = carry
            updates, state = optimizer.update(jax.grad(loss)(params, jax.random.fold_in(key, at), 32), state, params)
            return optax.apply_updates(params, updates), state

        return jax.lax.fori_loop(start, end, step, (params, state))

    advance = jax.jit(jax.vmap(chunk, (0, 0, 0, None, None)))
    evaluate = jax.jit(jax.vmap(functools.partial(loss, count=64), (0, None)))
    keys = jax.vmap(jax.random.key)(jnp.arange(SEEDS))
    params = jax.vmap(init)(keys)
    state, at = jax.vmap(optimizer.init)(params), 0
    runs = [[] for _ in range(SEEDS)]
    for end in STEPS:
        params, state = advance(params, state, keys, at, end)
        at = end
        losses = np.asarray(evaluate(params, jax.random.key(1000 + end)))
        arrays = {name: np.asarray(values) for name, values in params.items()}
        for seed in range(SEEDS):
            runs[seed].append(Saved({name: values[seed] for name, values in arrays.items()}, float(losses[seed])))
    return runs


@pytest.fixture(scope="session")
def runs():
    return {name: train(optimizer) for name, optimizer in OPTIMIZERS.items()}


@pytest.fixture(params=OPTIMIZERS)
def pair(request, runs):
    """Two trainings that differ by the seed, each as a dictionary by step that a test may change."""
    return [dict(zip(STEPS, run, strict=True)) for run in runs[request.param]]


@pytest.fixture
def one(runs):
    return dict(zip(STEPS, runs["adam"][0], strict=True))


def tensor(name, values):
    return StoredTensor(name, values.shape, values.dtype.name, Path(name), lambda: np.array(values, np.float32))


def opened(saved):
    return {name: tensor(name, values) for name, values in saved.tensors.items()}


def checkpoints_of(series):
    return [Audited(step, f"step-{step}", functools.partial(opened, s), s.loss) for step, s in series.items()]


def audited(series):
    return audit(checkpoints_of(series))


def found(series):
    """Returns what is found: the kind and the steps of each."""
    return [(finding.kind, finding.steps) for finding in audited(series).findings]


def cast(saved, dtype):
    return saved._replace(tensors={name: values.astype(dtype) for name, values in saved.tensors.items()})


def without_losses(series):
    return {step: saved._replace(loss=None) for step, saved in series.items()}


@pytest.mark.parametrize(
    "steps",
    [STEPS, range(0, LAST + 1, 100), range(0, LAST + 1, 300), (0, 1, 2, 4, 8, 16, 32, 64)],
    ids=["dense early", "regular", "few", "early"],
)
def test_a_sound_series_has_no_findings(pair, steps):
    for series in pair:
        result = audited({step: series[step] for step in steps})
        assert result.findings == ()
        assert result.is_sound
        assert table(result).endswith("Nothing was found.")


def test_rows(one):
    for dtype, size in ((np.float32, 4), (ml_dtypes.bfloat16, 2)):
        series = {step: cast(one[step], dtype) for step in (0, 100, 200)}
        first, _, last = audited(series).rows
        count = sum(values.size for values in one[0].tensors.values())
        assert (last.step, last.name, last.parameters, last.bytes) == (200, "step-200", count, size * count)
        assert last.dtype == np.dtype(dtype).name
        assert last.loss == one[200].loss
        assert first.distance is None
        flat = [np.concatenate([v.astype(float).ravel() for v in series[step].tensors.values()]) for step in (100, 200)]
        distance = np.linalg.norm(flat[1] - flat[0]) / np.linalg.norm(flat[0])
        np.testing.assert_allclose(last.distance, distance, rtol=1e-12)


def test_the_digest_is_of_values_in_any_precision_order_and_container(one):
    saved = cast(one[100], np.float16)
    same = cast(Saved(dict(reversed(saved.tensors.items())), None), np.float32)
    assert measure(checkpoints_of({0: saved}))[0].digest == measure(checkpoints_of({0: same}))[0].digest
    other = Saved(saved.tensors | {"b2": saved.tensors["b2"] + np.float16(1)}, None)
    assert measure(checkpoints_of({0: saved}))[0].digest != measure(checkpoints_of({0: other}))[0].digest


def test_two_tensors_are_in_memory_at_a_time():
    references, most = [], [0]

    class Counted:
        shape, dtype = (300, 300), "float32"

        def read(self):
            array = np.ones(self.shape, np.float32)
            references.append(weakref.ref(array))
            most[0] = max(most[0], sum(reference() is not None for reference in references))
            return array

    checkpoints = [Audited(step, str(step), lambda: dict.fromkeys("abc", Counted())) for step in (0, 100, 200)]
    assert sum(values.size for values in measure(checkpoints)[2].sample.values()) <= SAMPLE + 3
    assert len(references) == 3 * 3 + 2 * 3
    assert most[0] == 2


def test_two_swapped(pair):
    series = without_losses(pair[0])
    series[300], series[900] = series[900], series[300]
    assert found(series) == [("order", (300, 900))]


def test_neighbours_swapped(pair):
    series = without_losses(pair[0])
    series[500], series[550] = series[550], series[500]
    assert found(series) == [("order", (500, 550))]


def test_one_of_another_place(one):
    series = without_losses(one)
    moved = series.pop(900)
    values = [series[step] for step in series]
    values.insert(list(series).index(300), moved)
    series = dict(zip(STEPS, values, strict=True))  # what was 300 is called 350, and so on
    (finding,) = audited(series).findings
    assert (finding.kind, finding.steps, finding.certain) == ("order", (300,), False)
    assert "between 900 and 950" in str(finding)


@pytest.mark.parametrize("step", [32, 600, LAST])
def test_one_of_another_seed(pair, step):
    ours, other = pair
    assert found(without_losses(ours) | {step: other[step]._replace(loss=None)}) == [("other run", (step,))]


def test_two_runs_by_turns(pair):
    ours, other = map(without_losses, pair)
    turns = STEPS[10::2]
    assert found(ours | {step: other[step] for step in turns}) == [("other run", turns)]


@pytest.mark.parametrize("start", [100, 700])
def test_two_runs_in_a_row(pair, start):
    ours, other = map(without_losses, pair)
    later = tuple(step for step in STEPS if step >= start)
    assert found(ours | {step: other[step] for step in later}) == [("other run", later)]


def test_late_weights_under_early_names(one):
    series = without_losses(one)
    for step, late in ((64, 1000), (300, 1000), (350, 1200)):
        series[step] = series[late]
    findings = audited(series).findings
    assert [(finding.kind, finding.steps) for finding in findings] == [
        ("duplicates", (64, 300, 1000)),
        ("duplicates", (350, 1200)),
    ]
    assert all(finding.certain for finding in findings)
    assert "most plausibly of step 1,000;" in str(findings[0])
    assert "most plausibly of step 1,200;" in str(findings[1])


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_duplicates_in_another_precision(one, dtype):
    series = without_losses(one)
    series[200] = cast(series[900], dtype)
    kinds = found(series)
    assert ("duplicates", (200, 900)) in kinds
    assert ("dtypes", (200,)) in kinds


def test_the_first_step_of_a_warm_up_may_change_nothing(one):
    series = without_losses(one)
    series[1] = series[0]
    assert found(series) == []
    series[2] = series[0]
    assert found(series) == [("duplicates", (0, 1, 2))]


@pytest.mark.parametrize(("step", "source"), [(600, 550), (LAST, 1450), (600, 200)], ids=["before", "last", "far"])
def test_files_of_two_checkpoints(pair, step, source):
    series = without_losses(pair[0])
    mixed = {name: series[source].tensors[name] for name in ("w1", "w2", "b2")}
    series[step] = Saved(series[step].tensors | mixed, None)
    assert ("stale tensors", tuple(sorted((step, source)))) in found(series)


def test_frozen_tensors(one):
    series = without_losses(one)
    series = {step: Saved(s.tensors | {"w0": one[0].tensors["w0"]}, None) for step, s in series.items()}
    assert found(series) == []
    assert found(series | {300: series[900], 900: series[300]}) == [("order", (300, 900))]


def test_a_loss_that_jumps(pair):
    series = pair[0]
    high = max(saved.loss for saved in series.values())
    series[1200] = series[1200]._replace(loss=2 * high)
    assert found(series) == [("loss", (1200,))]
    assert "the loss at step 1,200 is" in str(audited(series).findings[0])


def test_missing_steps(one):
    series = {step: saved for step, saved in without_losses(one).items() if step not in (600, 1000)}
    assert found(series) == [("missing steps", (600, 1000))]


def test_tensors_that_are_missing_surplus_or_of_other_shapes(one):
    series = without_losses(one)
    missing, surplus, other = (dict(series[step].tensors) for step in (100, 150, 200))
    del missing["b1"]
    surplus["extra"] = surplus["b1"]
    other["w1"] = other["w1"].T.copy()
    series |= {step: Saved(t, None) for step, t in zip((100, 150, 200), (missing, surplus, other), strict=True)}
    findings = audited(series).findings
    assert [(finding.kind, finding.steps) for finding in findings] == [("shapes", (s,)) for s in (100, 150, 200)]
    for finding, what in zip(findings, ("without b1", "with also extra", "w1 is [48, 64], not [64, 48]"), strict=True):
        assert what in str(finding)


def test_precisions(one):
    series = {step: cast(saved, np.float16) for step, saved in without_losses(one).items()}
    series |= {step: without_losses(one)[step] for step in (400, 450)}
    assert found(series) == [("dtypes", (400, 450))]


def test_vocabularies(one):
    checkpoints = checkpoints_of(without_losses(one))
    tokens = dict.fromkeys(STEPS[1:], ("a", "b", "c")) | {500: ("a", "c", "b"), 550: ("a", "b")}
    findings = audit([c._replace(vocabulary=tokens.get(c.step)) for c in checkpoints]).findings
    assert [(finding.kind, finding.steps) for finding in findings] == [
        ("vocabularies", (500,)),
        ("vocabularies", (550,)),
    ]
    assert "token 1 is 'c', not 'b'" in str(findings[0])
    assert "2 tokens, not 3" in str(findings[1])


def test_what_cannot_be_read(one):
    def partial():
        raise UserError("3 shards", "2 of them", "download the third")

    series = without_losses(one)
    series[400] = Saved(series[400].tensors | {"b0": np.full(64, np.nan, np.float32)}, None)
    checkpoints = [c._replace(open=partial) if c.step == 300 else c for c in checkpoints_of(series)]
    result = audit(checkpoints)
    assert [(finding.kind, finding.steps) for finding in result.findings] == [
        ("unreadable", (300,)),
        ("unreadable", (400,)),
    ]
    assert "download the third" in str(result.findings[0])
    assert "finite values in b0" in str(result.findings[1])
    row = result.rows[STEPS.index(300)]
    assert (row.parameters, row.distance, row.digest) == (None, None, None)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_short_series(one, count):
    series = {step: one[step] for step in STEPS[8 : 8 + count]}
    assert audited(series).is_sound
    assert len(audited(series).rows) == count


def test_table_csv_and_figure(one, tmp_path):
    series = dict(one)
    series[300], series[900] = series[900], series[300]
    series[200] = Saved({"w0": np.zeros((3, 3), np.float32)}, None)
    del series[1000]
    result = audited(series)
    lines = table(result).splitlines()
    assert lines[0].split()[:3] == ["step", "name", "loss"]
    marked = {line.split()[0] for line in lines[1 : 1 + len(series)] if line.endswith(("order", "shapes", "loss"))}
    assert {"200", "300", "900"} <= marked
    assert sum("fit much better each at the other's place; swap them back" in line for line in lines) == 1
    rows = list(csv.DictReader(io.StringIO(as_csv(result))))
    assert [int(row["step"]) for row in rows] == list(series)
    assert float(rows[1]["distance"]) == result.rows[1].distance
    assert "shapes" in rows[list(series).index(200)]["findings"]
    save_figure(result, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    for shown in (series, without_losses(series)):
        with style.context(salt="audit"):
            figure = draw_audit(audited(shown))
        panels = [axes.get_ylabel() for axes in figure.axes]
        assert any(label.startswith("loss") for label in panels) == (shown is series)
        assert panels[-1].startswith("distance to the one before")
        legend = {text.get_text() for text in figure.legends[0].get_texts()}
        assert {"shapes", "order (likely)", "missing steps (likely)"} <= legend
