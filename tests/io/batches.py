"""One process of several: writes the parts of two steps' batches of text that lie on its devices.

python tests/io/batches.py CORPUS OUT COORDINATOR PROCESSES PROCESS
"""

import sys

import jax
import numpy as np

from pdjax.io.feed import open_feed
from pdjax.io.processes import join
from pdjax.keys import named_key
from pdjax.models.bert import Bert
from pdjax.tasks.text import Prepared, TextTask
from pdjax.train.optimizer import Sgd
from pdjax.train.replicas import build_sweep
from pdjax.train.sharding import MeshSizes, Placement
from pdjax.train.state import Program
from pdjax.train.step import Evaluation

STEPS, BATCH = 2, 12


def main(corpus: str, out: str, coordinator: str, processes: int, process: int) -> None:
    """Reads, masks and writes."""
    if processes > 1:
        join("on", coordinator, processes, process, 1)
    task = TextTask(Prepared.of(corpus))
    program = Program(task, Bert(1, 1, 4).build(task), None, Sgd(), BATCH, True, "train")
    sweep = build_sweep(program, STEPS, 1, Evaluation(1, 1, BATCH), Placement(MeshSizes(1, processes, 1)))
    feed = open_feed(sweep, (0,), 7, STEPS)
    examples = feed.examples(0, STEPS)
    feed.close()

    @jax.jit
    def draw(examples):
        keys = jax.vmap(lambda step: named_key(7, "train", step))(np.arange(STEPS))
        return jax.vmap(lambda key, read: sweep.program.draw(key, BATCH, read))(keys, examples)

    batch = draw(examples)
    arrays = {name: batch.inputs[name] for name in ("tokens", "selected")} | {"targets": batch.targets}
    assert all(array.sharding.shard_shape(array.shape)[1] == BATCH // processes for array in arrays.values())
    parts = {
        f"{name}/{shard.index[1].start or 0}": np.asarray(shard.data)
        for name, array in arrays.items()
        for shard in array.addressable_shards
    }
    np.savez(f"{out}/{process}.npz", **parts)  # pyright: ignore


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]), int(sys.argv[5]))
