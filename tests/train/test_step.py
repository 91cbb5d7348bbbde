import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pdjax.distill import losses
from pdjax.distill.curriculum import FOREVER
from pdjax.distill.losses import Distillation, HiddenMatching, Labels
from pdjax.distill.teacher import Teacher
from pdjax.keys import named_key
from pdjax.models.bert import Bert
from pdjax.models.gpt2 import Gpt2
from pdjax.tasks.parity import ParityTask
from pdjax.train.chunk import train_chunk
from pdjax.train.optimizer import Adam, Sgd
from pdjax.train.state import Hyperparameters, Program, init_state
from pdjax.train.step import evaluate

TOTAL = jnp.int32(12)
SEED = jnp.int32(5)


@pytest.fixture(scope="module")
def program(program):
    """Without a warm-up, so that the first steps change something."""
    return program._replace(optimizer=dataclasses.replace(program.optimizer, warmup_fraction=0.0))


@pytest.fixture(scope="module")
def teacher(program):
    teaching = program._replace(model=program.teacher_model)
    checkpoints = initial(teaching)(jnp.array([10, 11, 12])).params
    # Sharper teachers than initial ones, so that a wrong checkpoint shows.
    checkpoints = jax.tree.map(lambda leaf: leaf * 2, checkpoints)
    return Teacher(checkpoints, jnp.array([0, 3, 7, FOREVER]), jnp.array([2, 0, 1, 0]))


def replicas(num, label_weight=0.0, temperature=1.0):
    numbers = {"temperature": jnp.full(num, temperature), "label_weight": jnp.full(num, label_weight)}
    return Hyperparameters(jnp.arange(num), jnp.linspace(1e-3, 2e-3, num), (numbers,))


@functools.cache
def initial(program):
    return jax.jit(functools.partial(init_state, program))


@functools.cache
def compiled_chunk(program, steps):
    return jax.jit(functools.partial(train_chunk, program, steps))


def run(program, teacher, num_replicas, chunks, members=None):
    members = replicas(num_replicas) if members is None else members
    state, parts = initial(program)(members.seed), []
    for steps in chunks:
        state, metrics = compiled_chunk(program, steps)(state, members, teacher, SEED, TOTAL)
        parts.append(metrics)
    return state, jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def teacher_at(teacher, step):
    return teacher.checkpoint(teacher.slot_at(teacher.starts, jnp.int32(step)))


def assert_same_bits(one, other):
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)), one, other)


def test_the_teacher_switches_exactly_at_the_starts(teacher):
    used = [int(jnp.argmax(jnp.array([_same(teacher, step, k) for k in range(3)]))) for step in range(10)]
    assert used == [2, 2, 2, 0, 0, 0, 0, 1, 1, 1]
    assert all(sum(_same(teacher, step, k) for k in range(3)) == 1 for step in range(10))


def _same(teacher, step, slot):
    checkpoint = teacher_at(teacher, step)
    pairs = zip(jax.tree.leaves(checkpoint), jax.tree.leaves(teacher.checkpoints), strict=True)
    return all(bool((a == b[slot]).all()) for a, b in pairs)


@pytest.mark.parametrize("chunks", [(12,), (1,) * 12, (4, 1, 1, 1, 1, 4)])
def test_chunk_length_does_not_change_the_result(program, teacher, chunks):
    assert_same_bits(run(program, teacher, 2, chunks), run(program, teacher, 2, (4, 4, 4)))


def test_chunk_equals_a_plain_loop_with_optax(program, teacher):
    """One replica against the textbook: optax's own Adam and schedule, one step at a time."""
    members = replicas(1)
    state, metrics = run(program, teacher, 1, (12,))
    rate = optax.cosine_decay_schedule(float(members.learning_rate[0]), 12)
    rule = program.optimizer
    adam = optax.chain(
        optax.clip_by_global_norm(rule.clip_norm), optax.adam(rate, rule.beta1, rule.beta2, rule.epsilon)
    )
    params = jax.tree.map(lambda leaf: leaf[0], initial(program)(members.seed).params)
    opt_state = adam.init(params)
    slots = [2] * 3 + [0] * 4 + [1] * 5

    @jax.jit
    def loss_and_gradient(params, checkpoint, step):
        batch = program.task.sample(named_key(5, "data", step), 4)
        target = jax.nn.softmax(program.teacher_model.apply(checkpoint, batch.inputs)[0])

        def loss(params):
            log_q = jax.nn.log_softmax(program.model.apply(params, batch.inputs)[0])
            divergence = jnp.sum(target * (jnp.log(target) - log_q), axis=-1)
            return jnp.sum(divergence * batch.weights) / jnp.sum(batch.weights)

        return jax.value_and_grad(loss)(params)

    @jax.jit
    def advance(params, opt_state, gradient):
        updates, opt_state = adam.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    for step, slot in enumerate(slots):
        checkpoint = jax.tree.map(lambda leaf, k=slot: leaf[k], teacher.checkpoints)
        value, gradient = loss_and_gradient(params, checkpoint, step)
        np.testing.assert_allclose(metrics.loss.sum[step, 0] / metrics.loss.count[step, 0], value, rtol=2e-5)
        params, opt_state = advance(params, opt_state, gradient)
    # Adam divides by gradients near zero, so compare absolutely: to a thousandth of what twelve steps of 1e-3 can move.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[0], b, atol=1e-5), state.params, params)


def test_labels_only_runs_no_teacher(program, teacher):
    labels = program._replace(teacher_model=None, losses=(Labels(),))
    _, alone = run(labels, None, 2, (6,), replicas(2)._replace(numbers=({},)))
    _, taught = run(program, teacher, 2, (6,), replicas(2, label_weight=1.0))
    np.testing.assert_allclose(alone.loss.sum, taught.loss.sum, rtol=1e-5)
    assert _flops(labels, None, 2) < 0.7 * _flops(program, teacher, 2)


def test_label_weight_mixes_the_losses(program, teacher):
    def first_loss(alpha):
        metrics = run(program, teacher, 1, (1,), replicas(1, label_weight=alpha))[1]
        return float(metrics.loss.sum[0, 0])

    assert first_loss(0.25) == pytest.approx(0.25 * first_loss(1.0) + 0.75 * first_loss(0.0), rel=1e-5)


def test_replicas_differ_in_temperature_within_one_program(program, teacher):
    numbers = {"temperature": jnp.array([1.0, 0.0]), "label_weight": jnp.zeros(2)}
    members = replicas(2)._replace(numbers=(numbers,), seed=jnp.zeros(2, jnp.int32))
    _, metrics = run(program, teacher, 2, (1,), members)
    batch = program.task.sample(named_key(5, "data", 0), 4)
    params = jax.tree.map(lambda leaf: leaf[0], initial(program)(members.seed).params)

    @jax.jit
    def by_hand(params, teacher, batch):
        student, answer = (
            program.model.apply(params, batch.inputs)[0],
            program.teacher_model.apply(teacher, batch.inputs)[0],
        )
        return jnp.sum(losses.cross_entropy(student, jnp.argmax(answer, axis=-1)) * batch.weights)

    np.testing.assert_allclose(metrics.loss.sum[0, 1], by_hand(params, teacher_at(teacher, 0), batch), rtol=1e-5)
    assert metrics.loss.sum[0, 0] != metrics.loss.sum[0, 1]


@pytest.fixture(scope="module")
def decoders():
    """A student and a wider teacher of parity whose last positions decide, and that teacher."""
    task = ParityTask(5, 2)
    student, wider = (Gpt2(1, heads, 4, None, 2).build(task) for heads in (1, 2))
    program = Program(task, student, wider, Sgd(), 8, True, "data", losses=(HiddenMatching(),))
    teaching = program._replace(model=wider, teacher_model=None, losses=(Labels(),))
    checkpoint = jax.tree.map(lambda leaf: 3 * leaf, initial(teaching)(jnp.array([9])).params)
    return program, Teacher(checkpoint, jnp.array([0]), jnp.array([0]))


def matching(hidden_weight):
    """Two replicas with a weight of the distance of hidden states."""
    members = replicas(2)
    return members._replace(numbers=({**members.numbers[0], "hidden_weight": jnp.full(2, hidden_weight)},))


def test_hidden_matching_trains_its_projection(decoders):
    """A step of SGD along the gradient of the relative mean square, by hand; many of Adam lower the loss."""
    program, teacher = decoders
    members = matching(1.0)._replace(learning_rate=jnp.full(2, 0.1))
    begun, (after, _) = initial(program)(members.seed), run(program, teacher, 2, (1,), members)
    inputs = program.task.sample(named_key(5, "data", 0), 8).inputs
    theirs = program.teacher_model.apply(teacher_at(teacher, 0), inputs)[1]["hidden"][-1][:, -1]
    for i in range(2):
        params = jax.tree.map(lambda leaf, i=i: leaf[i], begun.params)
        ours = program.model.apply(params["model"], inputs)[1]["hidden"][-1][:, -1]
        apart = ours @ params["loss"]["projection"] - theirs
        gradient = 2 / theirs.size * ours.T @ apart / jnp.mean(theirs**2)
        moved = params["loss"]["projection"] - after.params["loss"]["projection"][i]
        assert jnp.abs(moved).max() > 1e-3
        np.testing.assert_allclose(moved, 0.1 * gradient, atol=1e-6)
    slower = members._replace(learning_rate=jnp.full(2, 1e-2))
    adam = program._replace(optimizer=Adam("constant", 0.0))
    loss = run(adam, teacher, 2, (12,) * 8, slower)[1].loss.sum
    assert np.all(loss[-12:].mean(0) < 0.7 * loss[:12].mean(0))


def test_hidden_matching_without_weight_is_distillation(decoders):
    program, teacher = decoders
    members = matching(0.0)
    state, metrics = run(program, teacher, 2, (12,), members)
    distilled, expected = run(program._replace(losses=(Distillation(),)), teacher, 2, (12,))
    np.testing.assert_allclose(metrics.loss.sum, expected.loss.sum, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), state.params["model"], distilled.params)
    assert_same_bits(state.params["loss"], initial(program)(members.seed).params["loss"])


def test_blocks_of_the_vocabulary_train_and_evaluate_the_same(program, monkeypatch):
    """Of 7 classes 3 at a time, and without anybody's asking for all logits."""

    def built(student_block, teacher_block):
        student, teacher = (
            Bert(1, heads, 4, None, 2, vocabulary_block=block).build(program.task)
            for heads, block in ((1, student_block), (2, teacher_block))
        )
        return program._replace(model=student, teacher_model=teacher)

    at_once, in_blocks = built(None, None), built(3, 2)
    teaching = at_once._replace(model=at_once.teacher_model)
    checkpoints = jax.tree.map(lambda leaf: 2 * leaf, initial(teaching)(jnp.array([10, 11])).params)
    teacher = Teacher(checkpoints, jnp.array([0, 3]), jnp.array([1, 0]))
    members = replicas(2, label_weight=0.25)
    expected, wanted = run(at_once, teacher, 2, (6,), members)
    evaluated = evaluate(at_once, 2, 4, expected.params, SEED)
    monkeypatch.setattr(losses, "dense", None)
    state, metrics = run(in_blocks, teacher, 2, (6,), members)
    again = evaluate(in_blocks, 2, 4, expected.params, SEED)
    for one, other in ((metrics, wanted), (state.params, expected.params), (again, evaluated)):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), one, other)


def test_shared_batches_run_the_teacher_once(program, teacher):
    """FLOPs of the chunk as it is handed to the compiler: teacher + R students when shared, R times both when not."""
    unshared = program._replace(shared_batches=False)
    shared = {r: _flops(program, teacher, r) for r in (2, 3, 4)}
    separate = {r: _flops(unshared, teacher, r) for r in (2, 3, 4)}
    student = shared[3] - shared[2]
    both = separate[3] - separate[2]
    assert shared[4] - shared[3] == pytest.approx(student, rel=0.02)
    assert separate[4] - separate[3] == pytest.approx(both, rel=0.02)
    alone = shared[2] - 2 * student
    assert both - student == pytest.approx(alone, rel=0.1)
    assert alone == pytest.approx(_forward_flops(program, teacher), rel=0.1)


def _flops(program, teacher, num):
    members = replicas(num) if program.losses[0].asks_teacher else replicas(num)._replace(numbers=({},))
    state = jax.eval_shape(functools.partial(init_state, program), members.seed)
    lowered = jax.jit(functools.partial(train_chunk, program, 2)).lower(state, members, teacher, SEED, TOTAL)
    return lowered.cost_analysis()["flops"]


def _forward_flops(program, teacher):
    """The teacher's forward pass on its own; the chunk above also draws a batch, which is small beside it."""
    inputs = program.task.sample(jax.random.key(0), 4).inputs
    apply = jax.jit(lambda params, inputs: program.teacher_model.apply(params, inputs)[0])
    return apply.lower(teacher_at(teacher, 0), inputs).cost_analysis()["flops"]


@pytest.mark.parametrize("shared", [True, False])
def test_equal_curricula_of_the_replicas_are_the_shared_one(program, teacher, shared):
    chosen = program._replace(shared_batches=shared)
    rows = teacher._replace(starts=jnp.tile(teacher.starts, (2, 1)))
    one, other = (run(chosen, g, 2, (9,))[1].loss.sum for g in (teacher, rows))
    np.testing.assert_allclose(one, other, rtol=1e-5)


@pytest.mark.parametrize("shared", [True, False])
def test_replicas_with_curricula_of_their_own_have_their_own_teachers(program, teacher, shared):
    chosen = program._replace(shared_batches=shared)
    early, late = jnp.array([0, 1, 2, FOREVER]), jnp.array([0, 7, 8, FOREVER])
    both = run(chosen, teacher._replace(starts=jnp.stack([early, late])), 2, (9,))[1].loss.sum
    for replica, starts in enumerate((early, late)):
        alone = run(chosen, teacher._replace(starts=starts), 2, (9,))[1].loss.sum
        np.testing.assert_allclose(both[:, replica], alone[:, replica], rtol=1e-5)
    assert np.abs(both[2:, 0] - run(chosen, teacher._replace(starts=late), 2, (9,))[1].loss.sum[2:, 0]).max() > 1e-3


@pytest.mark.parametrize("shared", [True, False])
def test_chunk_length_does_not_matter_for_curricula_of_replicas(program, teacher, shared):
    chosen = program._replace(shared_batches=shared)
    rows = teacher._replace(starts=jnp.array([[0, 1, 2, FOREVER], [0, 7, 8, FOREVER]]))
    assert_same_bits(run(chosen, rows, 2, (9,)), run(chosen, rows, 2, (3, 3, 3)))


def test_separate_batches_depend_on_the_replicas_seed_alone(program, teacher):
    unshared = program._replace(shared_batches=False)
    members = replicas(2)
    one, metrics = run(unshared, teacher, 2, (3,), members)
    swapped, _ = run(unshared, teacher, 2, (3,), jax.tree.map(lambda leaf: leaf[::-1], members))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b[::-1], atol=1e-6), one.params, swapped.params)
    of_another_run = compiled_chunk(unshared, 3)(initial(unshared)(members.seed), members, teacher, SEED + 1, TOTAL)
    assert_same_bits((one, metrics), of_another_run)
    assert np.any(metrics.loss.count[:, 0] != metrics.loss.count[:, 1])


def test_dropout_repeats_with_the_step_and_not_with_the_chunk(program, teacher):
    dropped = program._replace(model=dataclasses.replace(program.model, dropout=0.3))
    assert_same_bits(run(dropped, teacher, 2, (6,)), run(dropped, teacher, 2, (3, 3)))
    assert not np.array_equal(run(dropped, teacher, 2, (6,))[1].loss.sum, run(program, teacher, 2, (6,))[1].loss.sum)


@pytest.mark.parametrize("curriculum", ["shared", "separate", "adaptive", "labels"])
def test_pieces_of_a_batch_give_the_step_of_the_whole(program, teacher, curriculum):
    chosen = program._replace(shared_batches=curriculum == "shared")
    members = replicas(2, label_weight=0.25)
    if curriculum == "labels":
        chosen, teacher = chosen._replace(teacher_model=None, losses=(Labels(),)), None
        members = members._replace(numbers=({},))
    if curriculum == "adaptive":
        teacher = teacher._replace(starts=jnp.array([[0, 1, 2, FOREVER], [0, 3, 4, FOREVER]]))
    whole, expected = run(chosen, teacher, 2, (6,), members)
    state, metrics = run(chosen._replace(micro_batches=2), teacher, 2, (6,), members)
    np.testing.assert_array_equal(metrics.loss.count, expected.loss.count)
    np.testing.assert_allclose(metrics.loss.sum, expected.loss.sum, rtol=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), state.params, whole.params)


def test_pieces_weigh_by_what_counts_in_them(program, teacher, monkeypatch):
    """All that counts is in one piece: a mean of the pieces' means would be half of the gradient."""

    def draw(self, key, batch_size, examples=None):
        batch = type(self).sample(self, key, batch_size)
        return batch._replace(weights=batch.weights * (jnp.arange(batch_size) % 2 == 0)[:, None])

    monkeypatch.setattr(type(program.task), "draw", draw)
    rule = program._replace(optimizer=Sgd())
    steps = [
        jax.jit(functools.partial(train_chunk, rule._replace(micro_batches=pieces), 2))(
            initial(rule)(jnp.arange(2)), replicas(2), teacher, SEED, TOTAL
        )
        for pieces in (1, 2)
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), steps[0], steps[1])
    before = initial(rule)(jnp.arange(2)).params
    assert max(jax.tree.leaves(jax.tree.map(lambda a, b: float(abs(a - b).max()), steps[0][0].params, before))) > 1e-4


def test_a_mean_over_sequences_is_one_of_the_means_of_each(program):
    """Equations 3 and 4: within each sequence first; one in which nothing counts is no sequence."""
    rule = program._replace(
        teacher_model=None, losses=(Labels(),), optimizer=Sgd(), mean_over="sequence", shared_batches=True
    )
    members = replicas(1)._replace(numbers=({},))
    before = initial(rule)(members.seed).params
    one = jax.tree.map(lambda leaf: leaf[0], before)
    batch = rule.draw(named_key(SEED, rule.data_name, 0), rule.batch_size, None)
    counts = np.asarray(batch.weights).sum(axis=1)
    assert len({*counts}) > 2  # else both means are the same

    def of_each(params):
        logits, *_ = rule.model.apply(params, batch.inputs)
        values = optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), batch.targets)
        means = [jnp.sum(v * w) / jnp.sum(w) for v, w in zip(values, batch.weights, strict=True) if np.sum(w)]
        return jnp.mean(jnp.stack(means))

    expected = jax.grad(of_each)(one)
    rate = float(members.learning_rate[0])
    for pieces in (1, 2):
        state, metrics = run(rule._replace(micro_batches=pieces), None, 1, (1,), members)
        found = jax.tree.map(lambda new, old: (old - new[0]) / rate, state.params, one)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), found, expected)
        assert metrics.loss.count == np.sum(counts > 0)
    over_batch, _ = run(rule._replace(mean_over="batch"), None, 1, (1,), members)
    differing = jax.tree.map(lambda a, b: float(abs(a - b).max()), over_batch.params, state.params)
    assert max(jax.tree.leaves(differing)) > 1e-6


def test_pieces_have_masks_of_dropout_of_their_own(program, teacher):
    dropped = program._replace(model=dataclasses.replace(program.model, dropout=0.5), micro_batches=2)
    assert_same_bits(run(dropped, teacher, 2, (4,)), run(dropped, teacher, 2, (2, 2)))
    assert not np.array_equal(
        run(dropped, teacher, 2, (4,))[1].loss.sum, run(dropped._replace(micro_batches=4), teacher, 2, (4,))[1].loss.sum
    )


def test_pieces_of_held_out_batches_count_what_the_whole_does(program):
    params = initial(program)(jnp.arange(2)).params
    whole, pieces = (
        jax.jit(functools.partial(evaluate, program._replace(micro_batches=count), 2, 8))(params, SEED)
        for count in (1, 4)
    )
    np.testing.assert_array_equal(pieces.loss.count, whole.loss.count)
    np.testing.assert_array_equal(pieces.accuracy.sum, whole.accuracy.sum)
    np.testing.assert_allclose(pieces.loss.sum, whole.loss.sum, rtol=1e-5)


def test_evaluation_counts_every_selected_position(program):
    state = initial(program)(jnp.arange(2))
    result = evaluate(program, 3, 4, state.params, jnp.int32(9))
    batches = [program.task.sample(named_key(9, "evaluation", i), 4) for i in range(3)]
    params = jax.tree.map(lambda leaf: leaf[1], state.params)
    right = sum(
        float(jnp.sum((jnp.argmax(program.model.apply(params, b.inputs)[0], -1) == b.targets) * b.weights))
        for b in batches
    )
    assert float(result.accuracy.count[1]) == sum(float(b.weights.sum()) for b in batches)
    assert float(result.accuracy.sum[1]) == right


def test_evaluation_drops_nothing(program):
    dropped = program._replace(model=dataclasses.replace(program.model, dropout=0.3))
    params = initial(program)(jnp.arange(2)).params
    assert_same_bits(*(evaluate(one, 1, 4, params, jnp.int32(9)) for one in (dropped, program)))
