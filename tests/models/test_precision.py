"""Every product of every program says how exact it is, forward and backward: nothing is left to the hardware."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import pytest
from jax.lax import Precision

from pdjax.distill.losses import Distillation, Labels
from pdjax.distill.teacher import Teacher
from pdjax.models.bert import Bert
from pdjax.models.gpt2 import Gpt2
from pdjax.models.gpt_neox import GptNeoX
from pdjax.models.mlp import Mlp
from pdjax.probes.attention import attention_probe
from pdjax.probes.monomials import MonomialProbe, correlations
from pdjax.probes.nonterminals import NonterminalProbe, nonterminal_accuracy
from pdjax.tasks.parity import ParityTask
from pdjax.theory.constructions import apply, attention_selection
from pdjax.train.chunk import train_chunk
from pdjax.train.optimizer import Adam, Sgd
from pdjax.train.state import Hyperparameters, Program, init_state
from pdjax.train.step import evaluate

MEANT = {"float32": Precision.HIGHEST, "tf32": Precision.HIGH, "bfloat16": Precision.DEFAULT}
MODELS = {
    "bert": Bert(1, 2, 4, None, 2, 0.1),
    "gpt2": Gpt2(2, 2, 4, None, 2),
    "gpt_neox": GptNeoX(2, 2, 4, None, 2, rotary_share=0.5),
    "mlp": Mlp((8,)),
}
PARITY = ParityTask(8, 2)
ADAM = Adam("constant", 0.0)


def precisions(function, *arguments):
    """Returns the precision of every product, loops and branches included."""

    def walk(jaxpr):
        for equation in jaxpr.eqns:
            if equation.primitive.name == "dot_general":
                yield equation.params["precision"]
            for leaf in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
                if hasattr(leaf, "eqns"):
                    yield from walk(leaf)

    return list(walk(jax.make_jaxpr(function)(*arguments)))


def model(name, compute, task):
    return dataclasses.replace(MODELS[name], compute=compute).build(task)


def shapes(program, replicas):
    return jax.eval_shape(functools.partial(init_state, program), jnp.arange(replicas))


@pytest.fixture(params=MODELS)
def case(request, tiny):
    return request.param, tiny.task if request.param == "bert" else PARITY


@pytest.mark.parametrize(("teacher", "student"), [("float32", "float32"), ("bfloat16", "tf32")])
def test_products_of_training(case, teacher, student):
    """In the second case a gradient that forgets what its value was computed in would be float32."""
    name, task = case
    optimizer = Sgd() if name == "mlp" else Adam("constant", 0.0, 1.0)
    batch_size = 1 if name == "mlp" else 2  # in blocks, where it can be
    models = (model(name, compute, task) for compute in (student, teacher))
    program = Program(task, *models, optimizer, batch_size, True, "data", losses=(Distillation(),))
    teaching = program._replace(model=program.teacher_model, teacher_model=None, losses=(Labels(),))
    checkpoints = Teacher(shapes(teaching, 2).params, jnp.array([0, 1]), jnp.arange(2))
    members = Hyperparameters(jnp.arange(2), jnp.ones(2))
    taught = members._replace(numbers=({"temperature": jnp.ones(2), "label_weight": jnp.ones(2)},))
    pairs = precisions(
        functools.partial(train_chunk, program, 2),
        shapes(program, 2),
        taught,
        checkpoints,
        jnp.int32(0),
        jnp.int32(9),
    )
    alone = precisions(
        functools.partial(train_chunk, teaching, 2), shapes(teaching, 2), members, None, jnp.int32(0), jnp.int32(9)
    )
    assert set(pairs) == {(MEANT[kind],) * 2 for kind in (teacher, student)}
    assert set(alone) == {(MEANT[teacher],) * 2}


def test_products_of_evaluation(case):
    name, task = case
    program = Program(task, model(name, "float32", task), None, ADAM, 2, True, "data")
    pairs = precisions(functools.partial(evaluate, program, 1, 2), shapes(program, 2).params, jnp.int32(0))
    assert pairs
    assert set(pairs) == {(Precision.HIGHEST,) * 2}


def test_products_of_probes_but_not_of_the_models_they_look_at(tiny):
    strings, bits = tiny.task, PARITY
    bert, gpt2 = model("bert", "bfloat16", strings), model("gpt2", "bfloat16", bits)
    seed = jnp.int32(0)
    training = functools.partial(Program, teacher_model=None, optimizer=ADAM, batch_size=2)
    of_bert = shapes(training(strings, bert, shared_batches=True, data_name="data"), 2).params
    of_gpt2 = shapes(training(bits, gpt2, shared_batches=True, data_name="data"), 2).params
    membership = jnp.ones((8, 3))
    by_probe = {
        "nonterminals": precisions(
            functools.partial(nonterminal_accuracy, strings, bert, NonterminalProbe(2, 4, 4, 2, 1e-2)), of_bert, seed
        ),
        "monomials": precisions(
            functools.partial(correlations, bits, gpt2, MonomialProbe(1, 1, 4, 2)), membership, of_gpt2, seed
        ),
        "attention": precisions(functools.partial(attention_probe, bits, gpt2, 2, (0, 1)), of_gpt2, seed),
    }
    for each in by_probe.values():
        assert set(each) == {(Precision.HIGHEST,) * 2, (Precision.DEFAULT,) * 2}


def test_products_of_blocks_whose_weights_amplify_rounding():
    pairs = precisions(apply, attention_selection(8, (0, 1)), jnp.zeros((2, 8), int))
    assert set(pairs) == {(Precision.HIGHEST,) * 2}
