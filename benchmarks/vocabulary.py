"""What blocks of a large vocabulary save and cost: memory and time of the loss and of training steps, on this machine.

    JAX_PLATFORMS=cpu python benchmarks/vocabulary.py [--rounds 5] [--blocks 1024,2048,4096,8192] [--replicas 1]

30,522 classes, as many as BERT's published vocabulary, and models of 4 layers, width 256. The first table is the loss
of a student with a teacher by itself, value and gradient from the factors of both models' logits. The second is
distillation at temperature 1e-20 from a teacher of the student's size, 32 strings of 128 random tokens: BERT at 20 of
them, GPT-2 at all. Memory is what the compiled programs need beside arguments and results. Dense and blocked programs
take turns; times are medians, and medians of the rounds' own ratios.
"""

import argparse
import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from card.training import ADAM, prepare, values
from processor import processor
from timing import Timing, alternate, median_of_ratios

from pdjax.distill.losses import Distillation, Outputs
from pdjax.models.bert import Bert
from pdjax.models.gpt2 import Gpt2
from pdjax.models.head import Factored, dense
from pdjax.models.precision import products_in
from pdjax.settings import Count, settings
from pdjax.tasks.base import Task
from pdjax.train.state import Program
from pdjax.types import Batch

CLASSES, WIDTH, LAYERS, HEADS, BATCH, LENGTH, ASKED = 30_522, 256, 4, 4, 32, 128, 20
PLACES = (512, 4096)
LOSS = Distillation(1e-20)


@settings
class RandomTokens(Task):
    """Uniform tokens, predicted at some positions or at all."""

    predicts: ClassVar[Literal["positions", "example"]] = "positions"
    length: Count = LENGTH
    asked: Count | None = None
    """positions of each string; None: all, and no input says which"""

    @property
    def num_classes(self) -> int:
        """As many as tokens."""
        return CLASSES

    @property
    def vocabulary(self) -> int:
        """As many as BERT's."""
        return CLASSES

    @property
    def num_positions(self) -> int:
        """The length."""
        return self.length

    def sample(self, key: jax.Array, batch_size: int) -> Batch:
        """Draws tokens, and has the first ones predicted."""
        tokens = jax.random.randint(key, (batch_size, self.length), 0, CLASSES)
        inputs, count = {"tokens": tokens}, self.length
        if self.asked is not None:
            count = self.asked
            selected = jnp.broadcast_to(jnp.arange(self.length) < count, tokens.shape)
            asked = jnp.broadcast_to(jnp.arange(count), (batch_size, count))
            inputs |= {"valid": jnp.ones(tokens.shape, bool), "selected": selected, "asked": asked}
        return Batch(inputs, tokens[:, :count], jnp.ones((batch_size, count)), {})


STEPS = {
    f"BERT, {BATCH * ASKED} places": (Bert(LAYERS, HEADS, None, WIDTH), RandomTokens(asked=ASKED)),
    f"GPT-2, {BATCH * LENGTH} places": (Gpt2(LAYERS, HEADS, None, WIDTH), RandomTokens()),
}


def loss_alone(places: int, block: int | None) -> tuple[int, Callable[[], int]]:
    """Returns the bytes that the loss and its gradient need, and a function that computes both."""
    keys = iter(jax.random.split(jax.random.key(0), 5))

    def factors() -> Factored:
        states, head = (jax.random.normal(next(keys), shape) for shape in ((WIDTH, places), (CLASSES, WIDTH)))
        return Factored(states, WIDTH**-0.5 * head, None, block or CLASSES, "float32")

    student, teacher = factors(), factors()
    targets = jax.random.randint(next(keys), (places,), 0, CLASSES)
    numbers = {"temperature": jnp.float32(LOSS.temperature), "label_weight": jnp.float32(0.0)}

    def mean(student: Factored, teacher: Factored) -> tuple[jax.Array, jax.Array]:
        ours, theirs = (logits if block is not None else dense(logits) for logits in (student, teacher))
        batch = Batch({}, targets, jnp.ones(places), {})
        each, best = LOSS.values_and_best(Outputs(ours, {}), Outputs(theirs, {}), batch, numbers, None)
        return jnp.mean(each), jnp.mean(best == targets)

    with products_in("float32"):
        program = jax.jit(jax.value_and_grad(mean, has_aux=True)).lower(student, teacher).compile()

    def run() -> int:
        jax.block_until_ready(program(student, teacher))
        return 1

    return temporaries(program), run


def step(kind: str, block: int | None, replicas: int) -> tuple[int, Callable[[], int]]:
    """Returns the bytes that a training step needs beside its arguments, and a function that does one."""
    settings, task = STEPS[kind]
    model = dataclasses.replace(settings, vocabulary_block=block).build(task)
    program = Program(task, model, model, ADAM, BATCH, True, "train", (LOSS,))
    prepared = prepare(program, replicas, 1, 1, dict.fromkeys(("teacher", "student"), "float32"))
    state, *others = values(prepared)

    def run() -> int:
        nonlocal state
        state, metrics = prepared.compiled(state, *others)
        jax.block_until_ready((state, metrics))
        return 1

    return temporaries(prepared.compiled), run


def temporaries(program: Any) -> int:
    """Returns the bytes that a compiled program needs beside its arguments and results."""
    return program.memory_analysis().temp_size_in_bytes


def table(title: str, made: Mapping[str, tuple[int, Any]], rounds: int) -> None:
    """Times programs in turns and prints a line for each; the first is what the others are compared with."""
    timings: Mapping[str, Timing] = alternate({name: run for name, (_, run) in made.items()}, rounds, warmup=1)
    (first, least), *_ = ((name, memory) for name, (memory, _) in made.items())
    print(f"\n{title:32} {'MB':>8} {'of dense':>9} {'s':>8} {'of dense':>9}")
    for name, (memory, _) in made.items():
        slower = median_of_ratios(timings[name], timings[first])
        seconds = timings[name].median / 1e3
        print(f"{name:>32} {memory / 1e6:8.0f} {memory / least:9.2f} {seconds:8.3f} {slower:9.2f}", flush=True)


def main() -> None:
    """Prints the tables."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--blocks", default="1024,2048,4096,8192", help="classes at a time")
    arguments.add_argument("--replicas", type=int, default=1, help="students of the second table")
    options = arguments.parse_args()
    blocks = {"dense": None} | {f"blocks of {block}": int(block) for block in options.blocks.split(",")}
    print(f"{processor()}, jax {jax.__version__} on {jax.devices()[0].platform}, {options.rounds} rounds")
    cases = {f"loss, {places} places": functools.partial(loss_alone, places) for places in PLACES}
    cases |= {f"step, {kind}": functools.partial(step, kind, replicas=options.replicas) for kind in STEPS}
    for title, make in cases.items():
        table(title, {name: make(block) for name, block in blocks.items()}, options.rounds)


if __name__ == "__main__":
    main()
