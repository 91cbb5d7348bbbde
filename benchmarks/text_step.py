"""Training steps on text with a vocabulary of 30,522 against the same steps in PyTorch, on this machine.

    python benchmarks/text_step.py [--rounds 5] [--steps 2] [--block 2048]

Needs the peer extra (torch and transformers). All train BERT with 4 layers, 256 wide, in float32 on 2 threads: 32 rows
of 128 tokens of which 15 % are masked, gradient clipped at norm 1, Adam (0.9, 0.95). The first peer is Hugging Face's
``BertForMaskedLM`` as people run it: logits at every position, labels of -100 where none counts. The second is its
encoder with the head at the masked positions alone. For distillation the teacher is of the student's size, at
temperature 1e-20; where it is cached its answers are there, and the step is compared with one of labels. The peers'
batches are masked and moved to tensors beforehand, and they see no attention mask; this package masks inside the chunk,
and keeps packed documents apart.

The last lines are the input pipeline: how many rows a second it reads from a corpus that is prepared for this, and how
many the training step needs.
"""

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers
from card.training import ADAM, RATE
from processor import processor
from timing import alternate, median_of_ratios
from torch.nn import functional

from pdjax.distill.kept import Kept
from pdjax.distill.losses import Distillation
from pdjax.distill.teacher import Answers, Teacher
from pdjax.models.bert import Bert
from pdjax.tasks.base import batch_shapes
from pdjax.tasks.text import Prepared, TextTask
from pdjax.text.corpus import open_corpus
from pdjax.text.prepare import Preparation, prepare
from pdjax.text.sources import Source
from pdjax.train.replicas import build_sweep, place_hyperparameters, place_teacher, product_of_replicas
from pdjax.train.state import Program
from pdjax.train.step import LABELS, Evaluation

LAYERS, HEADS, HEAD_DIM, BATCH, LENGTH, VOCABULARY = 4, 4, 64, 32, 128, 30_522
WIDTH = HEADS * HEAD_DIM
TASK = TextTask(Prepared("nowhere", None, VOCABULARY, LENGTH))
TEMPERATURE = 1e-20
TAUGHT = Distillation(TEMPERATURE)


def rows(steps: int) -> dict[str, np.ndarray]:
    """Returns rows of ordinary tokens, one document each."""
    tokens = np.random.default_rng(0).integers(1000, VOCABULARY, (steps, BATCH, LENGTH)).astype(np.uint16)
    tokens[..., 0], tokens[..., -1] = TASK.corpus.first, TASK.corpus.last
    return {"tokens": tokens, "segments": np.ones(tokens.shape, np.uint8)}


def ours(teaching: Literal["labels", "live", "cached"], block: int, steps: int) -> Callable[[], int]:
    """Returns a function that runs one compiled chunk."""
    model = Bert(LAYERS, HEADS, HEAD_DIM, vocabulary_block=block).build(TASK)
    loss = LABELS if teaching == "labels" else TAUGHT
    program = Program(TASK, model, None if teaching == "labels" else model, ADAM, BATCH, True, "train", (loss,))
    sweep = build_sweep(program, steps, 1, Evaluation(1, 1, BATCH))
    members = place_hyperparameters(sweep.mesh, product_of_replicas([0], [RATE], [loss]))
    state, examples = sweep.init(members.seed), jax.tree.map(jnp.asarray, rows(steps))
    teacher = None
    if teaching == "live":
        stack = sweep.init(jnp.array([1])).params
        teacher = place_teacher(sweep, Teacher(stack, jnp.array((0,)), jnp.array((0,))))
    elif teaching == "cached":
        places = (steps, *batch_shapes(TASK, BATCH).targets.shape, 1)
        classes = np.random.default_rng(1).integers(0, VOCABULARY, places).astype(np.int32)
        teacher = Answers((Kept(jnp.asarray(classes), jnp.zeros(places), None),))

    def run() -> int:
        nonlocal state
        state, metrics = sweep.chunk(state, members, teacher, jnp.array(1), jnp.array(2**30), examples)
        jax.block_until_ready((state, metrics))
        return steps

    return run


def peer(taught: bool, gathered: bool, steps: int) -> Callable[[], int]:
    """Returns a function that trains Hugging Face's model, with its head everywhere or at masked positions."""
    batches = []
    for step in range(8):
        batch = TASK.batch(jax.random.key(step), {name: array[0] for name, array in rows(1).items()})
        tokens, selected = (torch.from_numpy(np.array(batch.inputs[name])) for name in ("tokens", "selected"))
        labels = torch.where(selected, torch.from_numpy(np.array(batch.extras["tokens"])), -100)
        batches.append((tokens.long(), selected, labels.long()))
    stream = itertools.cycle(batches)
    pupil, teacher = peer_model().train(), peer_model().eval()
    adam = torch.optim.Adam(pupil.parameters(), RATE, betas=(0.9, 0.95), foreach=True)

    def logits(model: Any, tokens: torch.Tensor, selected: torch.Tensor) -> torch.Tensor:
        if not gathered:
            return model(input_ids=tokens).logits[selected]
        return model.cls(model.bert(input_ids=tokens).last_hidden_state[selected])

    def loss_of(tokens: torch.Tensor, selected: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if not taught and not gathered:
            return pupil(input_ids=tokens, labels=labels).loss
        if not taught:
            return functional.cross_entropy(logits(pupil, tokens, selected), labels[selected])
        with torch.inference_mode():
            answer = torch.softmax(logits(teacher, tokens, selected) / TEMPERATURE, dim=-1)
        said = torch.log_softmax(logits(pupil, tokens, selected), dim=-1)
        return functional.kl_div(said, answer.clone(), reduction="batchmean")

    def run() -> int:
        for tokens, selected, labels in itertools.islice(stream, steps):
            adam.zero_grad()
            loss_of(tokens, selected, labels).backward()
            torch.nn.utils.clip_grad_norm_(pupil.parameters(), 1.0)
            adam.step()
        return steps

    return run


def peer_model() -> Any:
    """Returns Hugging Face's BERT of the same size, without dropout."""
    config = transformers.BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=4 * WIDTH,
        max_position_embeddings=LENGTH,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return transformers.AutoModelForMaskedLM.from_config(config, attn_implementation="sdpa")


def pipeline() -> Mapping[str, float]:
    """Returns the rows a second that are read of a corpus, by how many are read together."""
    random, words = np.random.default_rng(0), [f"w{number}" for number in range(5000)]
    with tempfile.TemporaryDirectory() as directory:
        texts = [" ".join(random.choice(words, 2000)) for _ in range(300)]
        folder = Path(directory) / "texts"
        folder.mkdir()
        for number, text in enumerate(texts):
            (folder / f"{number}.txt").write_text(text)
        sources = (Source("words", str(folder)),)
        prepare(f"{directory}/corpus", Preparation(sources, vocabulary=4000, length=LENGTH))
        corpus = open_corpus(f"{directory}/corpus")
        rates = {}
        for count in (BATCH, 50 * BATCH):
            seconds = []
            for first in range(0, 6 * count, count):
                began = time.perf_counter()
                corpus.read("train", 0, range(first, first + count))
                seconds.append(time.perf_counter() - began)
            rates[f"{count} at a time"] = count / statistics.median(seconds[1:])
        return rates


def main() -> None:
    """Prints the tables."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--steps", type=int, default=2, help="training steps per round")
    arguments.add_argument("--block", type=int, default=2048, help="classes at a time")
    options = arguments.parse_args()
    torch.set_num_threads(2)
    versions = f"jax {jax.__version__}, torch {torch.__version__}, transformers {transformers.__version__}"
    print(f"{processor()}, {versions}, {options.rounds} rounds")
    needed = 0.0
    for taught in (False, True):
        candidates = {
            "pdjax": ours("live" if taught else "labels", options.block, options.steps),
            "Hugging Face": peer(taught, False, options.steps),
            "head at masked positions": peer(taught, True, options.steps),
        }
        if not taught:
            candidates["pdjax, cached teacher"] = ours("cached", options.block, options.steps)
        timings = alternate(candidates, options.rounds, warmup=1)
        print(f"\n{'distillation' if taught else 'labels':28} {'ms':>8} {'/ pdjax':>8}")
        for name, timing in timings.items():
            print(f"{name:28} {timing.median:8.0f} {median_of_ratios(timing, timings['pdjax']):8.2f}")
        needed = max(needed, 1e3 * BATCH / timings["pdjax"].median)
    print(f"\nrows a second: {needed:.0f} needed by the faster step")
    for name, rate in pipeline().items():
        print(f"{name:28} {rate:8.0f} read, {rate / needed:.1f} times as many as needed")


if __name__ == "__main__":
    main()
