"""Operations counted from the jaxpr, against counts by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pdjax.distill.losses import Distillation
from pdjax.distill.teacher import Teacher
from pdjax.models.bert import Bert
from pdjax.models.mlp import Mlp
from pdjax.tasks.parity import ParityTask
from pdjax.train.chunk import train_chunk
from pdjax.train.flops import count_products
from pdjax.train.optimizer import Adam
from pdjax.train.state import Hyperparameters, Program, init_state

ADAM = Adam("constant", 0.0)


def test_a_product_counts_two_for_each_multiply():
    count = count_products(lambda a, b: a @ b, jnp.ones((3, 4)), jnp.ones((4, 5)))
    assert count == {"student": 2 * 3 * 4 * 5}
    batched = count_products(lambda a, b: jnp.einsum("bij,bjk->bik", a, b), jnp.ones((7, 3, 4)), jnp.ones((7, 4, 5)))
    assert batched == {"student": 7 * 2 * 3 * 4 * 5}


def test_loops_count_as_often_as_they_run_and_of_branches_the_dearest():
    a = jnp.ones((4, 4))

    def loop(x):
        return jax.lax.scan(lambda c, _: (jax.lax.fori_loop(0, 3, lambda _, d: d @ a, c), None), x, None, length=5)[0]

    assert count_products(loop, a) == {"student": 5 * 3 * 128}
    branch = functools.partial(jax.lax.cond, True, lambda x: x @ a @ a, lambda x: x @ a)
    assert count_products(branch, a) == {"student": 2 * 128}


def test_a_loop_of_unknown_length_with_products_is_an_error():
    def endless(x):
        return jax.lax.while_loop(lambda x: x.sum() < 10, lambda x: x @ x, x)

    with pytest.raises(ValueError, match="unknown length"):
        count_products(endless, jnp.ones((4, 4)))


@pytest.mark.parametrize("shared", [True, False])
def test_mlp_distillation_by_hand(shared):
    """Forward, and backward without the gradient of the inputs; a teacher that all replicas ask at once asks once."""
    d, wide, narrow, classes, batch, replicas, steps = 20, 64, 16, 2, 8, 3, 5
    task = ParityTask(d, 3)
    student, teacher = Mlp((narrow,)).build(task), Mlp((wide,)).build(task)
    program = Program(task, student, teacher, ADAM, batch, shared, "data", losses=(Distillation(),))
    state = init_state(program, jnp.arange(replicas))
    teachers = init_state(program._replace(model=teacher), jnp.arange(2)).params
    ones = jnp.ones(replicas)
    members = Hyperparameters(jnp.arange(replicas), ones, ({"temperature": ones, "label_weight": ones},))
    teacher = Teacher(teachers, jnp.array([0, 3]), jnp.array([0, 1]))
    count = count_products(
        functools.partial(train_chunk, program, steps), state, members, teacher, jnp.int32(0), jnp.int32(10)
    )
    forward = lambda width: 2 * batch * (d * width + width * classes)  # noqa: E731
    backward = 2 * batch * (narrow * classes * 2 + d * narrow)
    assert count["student"] == steps * replicas * (forward(narrow) + backward)
    assert count["teacher"] == steps * (1 if shared else replicas) * forward(wide)


def test_bert_forward_by_hand(tiny):
    """Six products a layer over all tokens, two over all pairs of them, the head; within 1 %."""
    task, batch, heads, layers = tiny.task, 4, 4, 3
    model, width = Bert(layers, heads, 16).build(task), heads * 16
    inputs = task.sample(jax.random.key(0), batch).inputs
    params = model.init(jax.random.key(0), inputs)
    count = count_products(lambda params: model.apply(params, inputs)[0], params)["student"]
    tokens, length = batch * task.num_positions, task.num_positions
    layer = 2 * tokens * width * width * (4 + 2 * 4) + 2 * 2 * batch * length * length * width
    head = 2 * tokens * width * (width + task.vocabulary)
    looked_up = 2 * tokens * width * task.vocabulary  # the embedding is a product with one-hot columns
    weights = 2 * batch * length * length * width * layers  # the attention weights that probes may ask for
    ones = 2 * batch * heads * length * length * layers  # the row under V that sums the weights
    np.testing.assert_allclose(count, layers * layer + head + looked_up + weights + ones, rtol=0.01)
