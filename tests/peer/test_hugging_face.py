"""Live comparison with Hugging Face's BERT in PyTorch: values, gradients, conversion, training, the golden file."""

import dataclasses
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pdjax.distill import losses
from pdjax.distill.losses import Distillation, Outputs
from pdjax.models.base import LinenModel
from pdjax.models.bert import Bert, BertModule
from pdjax.train.optimizer import Adam
from pdjax.train.state import Hyperparameters, Program, TrainState
from pdjax.train.step import gradients_of, updated
from pdjax.types import Batch
from pdjax.weights.layouts import params_of, weights_of

ABSENT = "the peer extra is not installed: pip install -e '.[test,peer]'"
torch = pytest.importorskip("torch", reason=ABSENT)
pytest.importorskip("transformers", reason=ABSENT)

VOCABULARY, LENGTH = 7, 24
SHAPES = [  # layers, heads, width, feed-forward multiple
    (1, 2, 16, 4),
    (2, 8, 64, 4),
    (3, 2, 48, 2),
    (4, 8, 32, 1),
]


@pytest.fixture(scope="module")
def maker(root):
    """tests/golden/make_bert.py as a module."""
    spec = importlib.util.spec_from_file_location("make_bert", root / "tests" / "golden" / "make_bert.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def bert(layers, heads, width, multiple, attend_to_selected=True):
    return Bert(layers, heads, None, width, multiple, attend_to_selected=attend_to_selected, token_types=2)


def our_model(*settings):
    return LinenModel(BertModule(bert(*settings), VOCABULARY, LENGTH))


def our_params(maker, model, shape):
    return params_of(maker.weights_of(model), bert(*shape), VOCABULARY, LENGTH).params


def our_inputs(batch):
    return {name: jnp.asarray(batch[name]) for name in ("tokens", "valid", "selected")}


@pytest.mark.parametrize("attend_to_selected", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_logits_and_gradients(maker, shape, attend_to_selected):
    theirs, batch = maker.build(*shape, LENGTH, seed=2), maker.draw_batch(LENGTH, seed=3)
    expected, expected_gradients = maker.gradients_of(theirs, batch, attend_to_selected)
    model, inputs, targets = our_model(*shape, attend_to_selected), our_inputs(batch), jnp.asarray(batch["targets"])

    def loss(params):
        logits = model.apply(params, inputs)[0]
        values = jnp.where(inputs["selected"], losses.cross_entropy(logits, targets), 0.0)
        return jnp.sum(values) / jnp.sum(inputs["selected"]), logits

    params = our_params(maker, theirs, shape)
    gradients, logits = jax.jit(jax.grad(loss, has_aux=True))(params)
    assert np.abs(logits - expected)[batch["valid"]].max() < 1e-5
    ours = weights_of(gradients, bert(*shape))
    for name in expected_gradients:
        if name.endswith("attention.self.key.bias"):  # truly 0: it adds the same to all scores of a query
            assert np.abs(ours[name]).max() < 1e-6, name
        else:
            scale = np.abs(expected_gradients[name]).max()
            assert np.abs(ours[name] - expected_gradients[name]).max() < 1e-4 * scale, name


@pytest.mark.parametrize("attend_to_selected", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_export(maker, shape, attend_to_selected):
    batch, model = maker.draw_batch(LENGTH, seed=4), our_model(*shape, attend_to_selected)
    inputs = our_inputs(batch)
    params = jax.tree.map(lambda p: p * 10 if p.ndim > 1 else p, model.init(jax.random.key(0), inputs))
    theirs = maker.build(*shape, LENGTH, seed=5)
    exported = {name: torch.tensor(np.array(value)) for name, value in weights_of(params, bert(*shape)).items()}
    theirs.load_state_dict(exported, strict=True)
    with torch.no_grad():
        expected = maker.logits_of(theirs, batch, attend_to_selected).numpy()
    assert np.abs(model.apply(params, inputs)[0] - expected)[batch["valid"]].max() < 1e-5


def test_training_step_by_step(maker):
    """Five steps of distillation at temperature 1e-4, clipped at norm 1, Adam: the same losses all the way."""
    shape, student_shape, rate, temperature, steps = (2, 8, 64, 4), (2, 2, 16, 4), 1e-2, 1e-4, 5
    batches = [maker.draw_batch(LENGTH, seed=10 + i, batch=8) for i in range(steps)]
    teacher, student = maker.build(*shape, LENGTH, seed=34), maker.build(*student_shape, LENGTH, seed=7)
    student_params, teacher_params = our_params(maker, student, student_shape), our_params(maker, teacher, shape)

    adam = torch.optim.Adam(student.parameters(), rate, betas=(0.9, 0.95), eps=1e-8)
    expected, norms = [], []
    for batch in batches:
        selected = torch.from_numpy(batch["selected"])
        with torch.no_grad():
            answers = maker.logits_of(teacher, batch, True)[selected]
        best = answers.topk(2).values
        assert (best[:, 0] - best[:, 1]).min() > 100 * temperature  # no near-tie that rounding could decide
        adam.zero_grad()
        log_probabilities = torch.log_softmax(maker.logits_of(student, batch, True)[selected], dim=-1)
        wanted = torch.softmax(answers / temperature, dim=-1)
        loss = torch.nn.functional.kl_div(log_probabilities, wanted, reduction="batchmean")
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0).item())
        adam.step()
        expected.append(loss.item())
    assert max(norms) > 1  # clipping did something
    assert max(expected) - min(expected) > 0.1

    rule, loss = Adam("constant", 0.0, 1.0, 0.9, 0.95), Distillation(temperature)
    models = our_model(*student_shape), our_model(*shape)
    program = Program(None, *models, rule, 8, False, "train", losses=(loss.family,))  # type: ignore
    numbers = {"temperature": jnp.array(temperature), "label_weight": jnp.array(0.0)}
    replica = Hyperparameters(jnp.array(0), jnp.array(rate), (numbers,))

    @jax.jit
    def step(state, batch):
        outputs = Outputs(*our_model(*shape).apply(teacher_params, batch.inputs))
        gradients, metrics = gradients_of(program, loss, state.params, state.step, batch, outputs, replica)
        return updated(program, state, gradients, replica.learning_rate, jnp.array(steps)), metrics

    state = TrainState(jnp.array(0), student_params, rule.direction().init(student_params))
    ours = []
    for batch in batches:
        weights = jnp.asarray(batch["selected"], jnp.float32)
        state, metrics = step(state, Batch(our_inputs(batch), jnp.asarray(batch["targets"]), weights, {}))
        ours.append(float(metrics.loss.sum / metrics.loss.count))
    np.testing.assert_allclose(ours, expected, atol=1e-4)


def test_golden_file_is_up_to_date(maker):
    fresh = maker.make()
    with np.load(maker.PATH) as file:
        assert set(file) == set(fresh)
        for name, value in fresh.items():
            if name.startswith(("weights/", "batch/")):
                np.testing.assert_array_equal(file[name], value, err_msg=name)
            else:
                np.testing.assert_allclose(file[name], value, atol=1e-5, err_msg=name)


def test_golden_shape_is_the_tests_shape(maker):
    golden = Bert(2, 4, None, 32, 2)  # as in tests/models/test_bert.py
    shape = (golden.num_layers, golden.num_heads, golden.model_width, golden.feed_forward_multiple)
    assert shape == tuple(maker.SHAPE[key] for key in ("num_layers", "num_heads", "width", "multiple"))
    assert dataclasses.replace(golden, attend_to_selected=False).attend_to_selected is maker.VARIANTS["off"]
