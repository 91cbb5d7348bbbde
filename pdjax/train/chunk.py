"""The chunk of training steps that is compiled: the only training loop of the core.

A chunk trains all replicas at once. Its steps run one by one, or in blocks for an MLP under plain batch-1 SGD
(``pdjax.train.blocked``) and for Algorithm 1 (``pdjax.train.two_stage``): these give the same results up to rounding,
and pass over the weights less often.
"""

import functools
import types
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from pdjax.distill.losses import Loss, Outputs
from pdjax.distill.teacher import Answers, Teacher
from pdjax.keys import named_key
from pdjax.models.head import dense
from pdjax.models.precision import with_float32_products
from pdjax.models.replicas import over_replicas
from pdjax.train import blocked, two_stage
from pdjax.train.narrow import narrowly
from pdjax.train.state import Hyperparameters, Program, TrainState
from pdjax.train.step import cut, gradients_of, updated
from pdjax.types import SELDOM, TEACHER, Batch, Examples, Mean, Params, StepMetrics, ratio

Chunk = Callable[..., tuple[TrainState, StepMetrics]]
"""``chunk(state, hyperparameters, teacher, data_seed, num_steps, examples)``, compiled, in the state's memory."""

Logits = Float[Array, "*leading V"]

_IN_BLOCKS = (blocked, two_stage)
"""Modules with exact blocks of steps: each says to which programs it ``applies``."""


@with_float32_products
def train_chunk(
    program: Program,
    chunk_steps: int,
    state: TrainState,
    hyperparameters: Hyperparameters,
    teacher: Teacher | Answers | None,
    data_seed: Int[Array, ""],
    num_steps: Int[Array, ""],
    examples: Examples | None = None,
) -> tuple[TrainState, StepMetrics]:
    """Trains all replicas for ``chunk_steps`` steps; returns the state and metrics of shape [N, R].

    With ``shared_batches`` all replicas see the batches of ``data_seed``, and the teacher runs once for all
    of them unless the curriculum is adaptive; otherwise every replica draws its own from its seed. ``examples`` are
    what the host has read for a fed task's batches: [N, B, ...], or [N, R, B, ...] where replicas do not share them.
    """
    # Answers change from step to step, as examples do; checkpoints stay.
    asked, answers = (None, teacher) if isinstance(teacher, Answers) else (teacher, None)

    def single(state: TrainState, of_step: tuple[Examples | None, Answers | None]) -> tuple[TrainState, StepMetrics]:
        return _advance(program, state, hyperparameters, asked, data_seed, num_steps, *of_step)

    form = in_blocks(program)

    def block(state: TrainState, size: int) -> tuple[TrainState, StepMetrics]:
        assert form is not None  # else steps run one by one
        return _advance_block(program, form, size, state, hyperparameters, asked, data_seed, num_steps)

    if answers is not None or form is None:
        return jax.lax.scan(single, state, (examples, answers), length=chunk_steps)
    size = min(form.block_steps(program), chunk_steps)  # a static shape: of every block but the last
    blocks, rest = divmod(chunk_steps, size)
    state, metrics = jax.lax.scan(lambda s, _: block(s, size), state, None, length=blocks)
    # [blocks, size, R] to [N, R].
    metrics = jax.tree.map(lambda leaf: leaf.reshape(blocks * size, *leaf.shape[2:]), metrics)
    if rest:
        state, last = block(state, rest)
        metrics = jax.tree.map(lambda *parts: jnp.concatenate(parts), metrics, last)
    return state, metrics


def in_blocks(program: Program) -> types.ModuleType | None:
    """Returns the module by whose exact blocks a program's steps run; None if they run one by one."""
    return next((form for form in _IN_BLOCKS if form.applies(program)), None)


def _by_loss(program: Program, one: Callable[[Loss], Callable[..., Any]], hyperparameters: Hyperparameters) -> Any:
    """Returns a function of all replicas that runs each of them with its loss.

    Args:
      program: of the run.
      one: returns, for a loss, the function of one replica: of its hyperparameters and of what else there is.
      hyperparameters: of all replicas.
    """
    if len(program.losses) == 1:
        return functools.partial(over_replicas(one(program.losses[0])), hyperparameters)

    def together(*arguments: Any) -> Any:
        # Slices with static bounds. A switch by a replica's loss would, under vmap, compute every loss for every
        # replica.
        parts, first = [], 0
        for loss, size, numbers in zip(program.losses, program.group_sizes, hyperparameters.numbers, strict=True):
            seeds, rates, *others = jax.tree.map(
                lambda leaf, a=first, b=first + size: leaf[a:b],
                (hyperparameters.seed, hyperparameters.learning_rate, *arguments),
            )
            parts.append(over_replicas(one(loss))(Hyperparameters(seeds, rates, (numbers,)), *others))
            first += size
        return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)

    return together


def _advance(
    program: Program,
    state: TrainState,
    hyperparameters: Hyperparameters,
    teacher: Teacher | None,
    data_seed: Int[Array, ""],
    num_steps: Int[Array, ""],
    examples: Examples | None,
    answers: Answers | None,
) -> tuple[TrainState, StepMetrics]:
    """One step of all replicas; metrics have shape [R]. ``examples`` and ``answers`` are of this step."""
    # Batches and checkpoints are looked up by the step itself, which all replicas share: nothing is carried from step
    # to step but the state, so a chunk may begin anywhere.
    shared = separate = None
    if program.shared_batches:
        shared = draw_batch(program, data_seed, state.step, examples)
    else:
        draw = over_replicas(lambda seed, own: draw_batch(program, seed, state.step, own))
        separate = draw(hyperparameters.seed, examples)
    several = teacher if teacher is not None and teacher.curriculum is not None else None
    fixed = teacher if teacher is not None and not teacher.adaptive and several is None else None
    checkpoint = None if fixed is None else fixed.checkpoint(fixed.slot_at(fixed.starts, state.step))
    rows = teacher.starts if teacher is not None and teacher.adaptive else None
    curricula = None if several is None else several.curriculum

    def of_batch(
        shared: Batch | None, separate: Batch | None, answers: Answers | None, piece: Int[Array, ""] | None
    ) -> tuple[Params, StepMetrics]:
        """Returns the gradients of all replicas; ``separate`` batches lead with R."""
        if shared is not None:
            return narrowly(program.bounds, lambda batch: of_whole(batch, None, answers, piece), shared)
        assert separate is not None
        return narrowly(program.bounds, lambda batch: of_whole(None, batch, answers, piece), separate)

    def of_whole(
        shared: Batch | None, separate: Batch | None, answers: Answers | None, piece: Int[Array, ""] | None
    ) -> tuple[Params, StepMetrics]:
        shared_outputs = teach(program, checkpoint, shared) if fixed is not None and shared is not None else None
        outputs_of_each = None
        if several is not None:
            assert shared is not None  # else there is nothing to share
            outputs_of_each = _teach_each(program, several, shared, state.step)

        # What differs by replica is an argument of `of_replica`, over which it is mapped; what all share it finds
        # around it, so that vmap makes no copies of it. An argument that is None has no leaves to map.
        def one(loss: Loss) -> Callable[..., tuple[Params, StepMetrics]]:
            def of_replica(
                replica: Hyperparameters,
                params: Params,
                starts: Int[Array, "S"] | None,
                curriculum: Int[Array, ""] | None,
                own_batch: Batch | None,
            ) -> tuple[Params, StepMetrics]:
                batch = shared if own_batch is None else own_batch
                assert batch is not None  # either is there
                outputs = shared_outputs
                if outputs_of_each is not None:
                    outputs = jax.tree.map(lambda leaf: leaf[curriculum], outputs_of_each)
                if answers is not None:
                    outputs = Outputs(answers.kept[program.losses.index(loss)], {})
                if not loss.asks_teacher:  # others that are trained with it do
                    outputs = None
                elif outputs is None and teacher is not None:
                    mine = checkpoint if starts is None else teacher.checkpoint(teacher.slot_at(starts, state.step))
                    outputs = teach(program, mine, batch)
                return gradients_of(program, loss, params, state.step, batch, outputs, replica, piece)

            return of_replica

        return _by_loss(program, one, hyperparameters)(state.params, rows, curricula, separate)

    if program.micro_batches == 1:
        gradients, metrics = of_batch(shared, separate, answers, None)
    else:
        gradients, metrics = _over_pieces(program.micro_batches, of_batch, shared, separate, answers)

    def update(rate: Float[Array, ""], params: Params, opt_state: optax.OptState, gradients: Params) -> TrainState:
        return updated(program, TrainState(state.step, params, opt_state), gradients, rate, num_steps)

    after = over_replicas(update)(hyperparameters.learning_rate, state.params, state.opt_state, gradients)
    # The steps that come back have become one for each replica.
    return TrainState(state.step + 1, after.params, after.opt_state), metrics


def _teach_each(program: Program, teacher: Teacher, batch: Batch, step: Int[Array, ""]) -> Outputs:
    """Returns what the teachers of several curricula say to a batch that all share, by curriculum, each asked once."""
    slots, places = teacher.distinct(step)
    numbers = jnp.arange(len(slots))

    def say(slot: Int[Array, ""]) -> Outputs:
        return teach(program, teacher.checkpoint(slot), batch)

    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(say, slots[0]))

    def ask(_: None, one: tuple[Array, Array]) -> tuple[None, Outputs]:
        number, slot = one
        return None, jax.lax.cond(number <= jnp.max(places), say, lambda _: nothing, slot)

    _, outputs = jax.lax.scan(ask, None, (numbers, slots))
    return jax.tree.map(lambda leaf: leaf[places], outputs)


def _over_pieces(
    count: int,
    of_batch: Callable[..., tuple[Params, StepMetrics]],
    shared: Batch | None,
    separate: Batch | None,
    answers: Answers | None,
) -> tuple[Params, StepMetrics]:
    """Returns the gradients of the mean loss over a batch and its metrics, from ``count`` pieces of it in turn."""
    # [B, ...], of separate batches [R, B, ...], to [count, B / count, ...]: neighbours go to different pieces, so that
    # each device, which holds some in a row, has its share of every piece.
    whole = (shared, answers), separate
    pieces = tuple(jax.tree.map(functools.partial(cut, count, axis), part) for axis, part in enumerate(whole))

    def add(total: Any, numbered: Any) -> tuple[Any, None]:
        piece, ((shared, answers), separate) = numbered
        return jax.tree.map(jnp.add, total, of_batch(shared, separate, answers, piece)), None

    numbers = jnp.arange(count)
    first = jax.tree.map(lambda leaf: leaf[0], (numbers, pieces))
    blank = jax.eval_shape(lambda piece, parts: of_batch(parts[0][0], parts[1], parts[0][1], piece), *first)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), blank)
    (sums, metrics), _ = jax.lax.scan(add, zeros, (numbers, pieces))

    def mean(counted: Float[Array, ""], sums: Params) -> Params:
        return jax.tree.map(lambda total: ratio(Mean(total, counted)), sums)

    # Of all pieces together: a mean of their means would weigh those in which little counts too much.
    return over_replicas(mean)(metrics.loss.count, sums), metrics


def _advance_block(
    program: Program,
    form: types.ModuleType,
    size: int,
    state: TrainState,
    hyperparameters: Hyperparameters,
    teacher: Teacher | None,
    data_seed: Int[Array, ""],
    num_steps: Int[Array, ""],
) -> tuple[TrainState, StepMetrics]:
    """``size`` steps of all replicas, as ``form`` does them; metrics have shape [size, R]."""
    steps = state.step + jnp.arange(size)  # [N]

    def draw(seed: Int[Array, ""]) -> Batch:
        return jax.vmap(lambda step: draw_batch(program, seed, step, None))(steps)

    shared = draw(data_seed) if program.shared_batches else None  # [N, B, ...]
    separate = None if shared is not None else jax.vmap(draw)(hyperparameters.seed)  # [R, N, B, ...]
    logits = None
    if teacher is not None:
        logits = _teach_block(program, teacher, shared, separate, state.step, size)
    # All of the block's batches at once: the teacher does not change by the student's steps, so it needs no
    # step-by-step loop. What it says to shared batches is found from within `advance`, otherwise [R, N, B, V] is mapped
    # over.
    replica_logits = logits if teacher is not None and (teacher.adaptive or shared is None) else None

    def one(loss: Loss) -> Callable[..., tuple[TrainState, StepMetrics]]:
        def advance(
            replica: Hyperparameters,
            params: Params,
            opt_state: optax.OptState,
            batches: Batch | None,
            block_logits: Logits | None,
        ) -> tuple[TrainState, StepMetrics]:
            mine = shared if batches is None else batches
            block_logits = logits if block_logits is None else block_logits
            assert mine is not None
            start = TrainState(state.step, params, opt_state)
            return form.train_block(program, loss, start, mine, block_logits, replica, num_steps)

        return advance

    of_all = _by_loss(program, one, hyperparameters)
    after, metrics = of_all(state.params, state.opt_state, separate, replica_logits)
    # Mapped over replicas, metrics come back as [R, size].
    return TrainState(state.step + size, after.params, after.opt_state), jax.tree.map(jnp.transpose, metrics)


def _teach_block(
    program: Program, teacher: Teacher, shared: Batch | None, separate: Batch | None, step: Int[Array, ""], size: int
) -> Logits:
    """Returns the teachers' logits for the batches of a block, [N, B, V] shared or [R, N, B, V]."""
    batches = shared if separate is None else separate
    assert batches is not None
    if teacher.adaptive:  # no switch within a chunk, hence none within a block
        axis = None if separate is None else 0  # shared batches are not copied for each replica

        def for_replica(starts: Int[Array, "S"], batches: Batch) -> Logits:
            return _teach_many(program, teacher.checkpoint(teacher.slot_at(starts, step)), batches, 1)

        return jax.vmap(for_replica, in_axes=(0, axis))(teacher.starts, batches)
    leading = 1 if separate is None else 2
    starts = teacher.starts

    def one_teacher() -> Logits:
        return _teach_many(program, teacher.checkpoint(teacher.slot_at(starts, step)), batches, leading)

    def a_teacher_each() -> Logits:
        def at(offset: Int[Array, ""]) -> Logits:
            checkpoint = teacher.checkpoint(teacher.slot_at(starts, step + offset))
            batch = jax.tree.map(lambda leaf: jnp.take(leaf, offset, axis=leading - 1), batches)
            return _teach_many(program, checkpoint, batch, leading - 1)

        # One step after the other: under vmap, every step would hold a copy of its checkpoint.
        each = jax.lax.map(at, jnp.arange(size))
        return each if separate is None else each.swapaxes(0, 1)

    # Where the curriculum moves on within the block, every step asks its own checkpoint.
    constant = teacher.slot_at(starts, step) == teacher.slot_at(starts, step + size - 1)
    # The condition is the same for all replicas and outside of their vmap, so that only one of the two runs.
    with jax.named_scope(SELDOM):
        return jax.lax.cond(constant, one_teacher, a_teacher_each)


def _teach_many(program: Program, checkpoint: Params, batches: Batch, leading: int) -> Logits:
    """Returns a teacher's logits for batches that have further leading axes, in one call."""
    # `leading` axes and the batch become one larger batch: one product reads the weights once.
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[leading + 1 :]), batches.inputs)
    # Of one place in each of few strings, and an MLP's student: blocks of the vocabulary are not for them.
    with jax.named_scope(TEACHER):
        logits = dense(teach(program, checkpoint, batches._replace(inputs=flat)).logits)
    return logits.reshape(*batches.targets.shape, logits.shape[-1])


def draw_batch(program: Program, seed: Int[Array, ""], step: Int[Array, ""], examples: Examples | None) -> Batch:
    """Returns the batch of a step of the stream with a seed."""
    return program.draw(named_key(seed, program.data_name, step), program.batch_size, examples)


def teach(program: Program, checkpoint: Params, batch: Batch) -> Outputs:
    """Returns what a checkpoint of the teacher says to a batch."""
    assert program.teacher_model is not None  # checkpoints come with their model
    # Without a dropout key nothing is dropped.
    with jax.named_scope(TEACHER):
        logits, intermediates = program.teacher_model.apply(checkpoint, batch.inputs)
    return Outputs(logits, intermediates if any(loss.reads_intermediates for loss in program.losses) else {})
