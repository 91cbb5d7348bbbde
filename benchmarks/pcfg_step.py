"""Training steps of this package against the same steps in PyTorch with Hugging Face's BERT, on this machine.

    python benchmarks/pcfg_step.py [--rounds 11] [--steps 20] [--json PATH]

Needs the peer extra (torch and transformers). Both sides train the same models in float32 on 2 threads:
64 sequences of 64 tokens, all valid, 30 % of the positions selected, loss at the selected positions only,
gradient clipped at norm 1, Adam (0.9, 0.95). Rounds alternate strictly; a round of this package is one
compiled chunk of ``steps`` steps, a round of the peer is as many eager steps. Where a choice had to be made
it favours the peer: its batches are drawn and moved to tensors beforehand while this package samples inside
the chunk, it gets no attention mask while this package adds one, and of all combinations of its attention
(sdpa, eager) and Adam (for-loop, foreach, fused) the fastest one is the peer. Both apply the head at selected
positions alone; this package its last layer too, where the batch allows it (``pdjax.train.narrow``).
"""

import argparse
import functools
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers
from card.training import ADAM, EXPAND, RATE, TAUGHT, TEMPERATURE, UniformTask, fresh, transformer
from parts import matmul_flops, parts, sampling
from processor import processor, product_peaks
from timing import Timing, alternate, median_of_ratios, ratio_of_medians
from torch.nn import functional

from pdjax.distill.teacher import Teacher
from pdjax.models.base import LinenModel
from pdjax.tasks.pcfg import VOCABULARY
from pdjax.train.replicas import build_sweep, place_hyperparameters, place_teacher, product_of_replicas
from pdjax.train.state import Program
from pdjax.train.step import LABELS, Evaluation
from pdjax.types import Model

BATCH, LENGTH, LAYERS, HEAD_DIM = 64, 64, 4, 8
TEACHER_HEADS, STUDENT_HEADS = 8, 2


TASK = UniformTask(LENGTH)


def model(heads: int) -> LinenModel:
    """Returns this package's BERT."""
    return transformer("bert", LAYERS, heads, HEAD_DIM, LENGTH)


def ours(student_heads: int, teacher_model: Model | None, replicas: int, steps: int, checkpoints: int = 1) -> Callable:
    """Returns a function that runs one compiled chunk; its argument chooses the curriculum."""
    loss = LABELS if teacher_model is None else TAUGHT
    program = Program(TASK, model(student_heads), teacher_model, ADAM, BATCH, replicas > 1, "train", (loss,))
    program = program._replace(bounds=TASK.bounds(BATCH if program.shared_batches else replicas * BATCH))
    sweep = build_sweep(program, steps, replicas, Evaluation(1, 1, BATCH))
    rows = place_hyperparameters(sweep.mesh, product_of_replicas(range(replicas), [RATE], [loss]))
    stack = jax.tree.map(
        lambda *leaves: jnp.stack(leaves), *[fresh(model(TEACHER_HEADS), LENGTH, k) for k in range(checkpoints)]
    )
    state = sweep.init(rows.seed)

    def run(starts: tuple[int, ...] = (0,), slots: tuple[int, ...] = (0,)) -> int:
        nonlocal state
        teacher = Teacher(stack, jnp.array(starts), jnp.array(slots))
        placed = None if teacher_model is None else place_teacher(sweep, teacher)
        state, metrics = sweep.chunk(state, rows, placed, jnp.array(1), jnp.array(2**30))
        jax.block_until_ready((state, metrics))
        return steps

    return run


def peer_model(heads: int, attention_kind: str) -> torch.nn.Module:
    """Returns Hugging Face's BERT without dropout."""
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=HEAD_DIM * heads,
        num_hidden_layers=LAYERS,
        num_attention_heads=heads,
        intermediate_size=EXPAND * HEAD_DIM * heads,
        max_position_embeddings=LENGTH,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model = transformers.AutoModelForMaskedLM.from_config(config, attn_implementation=attention_kind)
    return model.train()


def peer(student_heads: int, taught: bool, students: int, steps: int, attention_kind: str, adam: dict) -> Callable:
    """Returns a function that trains the peer's students for a number of steps, one after the other in each."""
    batches = [TASK.sample(jax.random.key(i), BATCH) for i in range(16)]
    drawn = [
        tuple(torch.from_numpy(np.array(x)).long() for x in (b.inputs["tokens"], b.targets, b.weights)) for b in batches
    ]
    stream = itertools.cycle([(tokens, targets, weights.bool()) for tokens, targets, weights in drawn])
    teacher = peer_model(TEACHER_HEADS, attention_kind).eval()
    pupils = [peer_model(student_heads, attention_kind) for _ in range(students)]
    adams = [torch.optim.Adam(pupil.parameters(), RATE, betas=(0.9, 0.95), **adam) for pupil in pupils]

    def run() -> int:
        for tokens, targets, selected in itertools.islice(stream, steps):
            wanted = None
            if taught:
                with torch.inference_mode():
                    answer = torch.softmax(selected_logits(teacher, tokens, selected) / TEMPERATURE, dim=-1)
                wanted = answer.clone()  # autograd may keep a normal tensor only
            for pupil, adam_step in zip(pupils, adams, strict=True):
                adam_step.zero_grad()
                logits = selected_logits(pupil, tokens, selected)
                if wanted is None:
                    loss = functional.cross_entropy(logits, targets[selected])
                else:
                    loss = functional.kl_div(torch.log_softmax(logits, dim=-1), wanted, reduction="batchmean")
                loss.backward()
                torch.nn.utils.clip_grad_norm_(pupil.parameters(), 1.0)
                adam_step.step()
        return steps

    return run


def selected_logits(of: torch.nn.Module, tokens: torch.Tensor, selected: torch.Tensor) -> torch.Tensor:
    """Returns Hugging Face's BERT's logits at selected positions, and computes its head there alone."""
    return of.cls(of.bert(input_ids=tokens).last_hidden_state[selected])  # pyright: ignore[reportCallIssue]


def fastest_peer(steps: int) -> tuple[str, dict]:
    """Returns the peer's fastest attention and Adam, by its distillation step."""
    adams = {"for-loop": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}
    candidates = {
        f"{kind}, {name}": peer(STUDENT_HEADS, True, 1, steps, kind, adam)
        for kind in ("sdpa", "eager")
        for name, adam in adams.items()
    }
    timings = alternate(candidates, 5)
    print("\nThe peer's variants, distillation step, median ms:")
    for name, timing in timings.items():
        print(f"  {name:20} {timing.median:8.2f}")
    kind, name = min(timings, key=lambda name: timings[name].median).split(", ")
    return kind, adams[name]


def compared(name: str, theirs: Timing, mine: Timing) -> dict:
    """Prints and returns one row of the comparison."""
    ratio, pairs = ratio_of_medians(theirs, mine), median_of_ratios(theirs, mine)
    print(
        f"  {name:38} {mine.median:8.2f} {mine.minimum:8.2f} {theirs.median:8.2f} {theirs.minimum:8.2f}"
        f" {ratio:7.2f} {pairs:7.2f}"
    )
    return {"pdjax": mine.rounds, "peer": theirs.rounds, "ratio_of_medians": ratio, "median_of_ratios": pairs}


def main() -> None:
    """Runs everything and prints the tables."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=11)
    arguments.add_argument("--steps", type=int, default=20, help="training steps per round")
    arguments.add_argument("--json", type=Path, help="where to write the numbers")
    options = arguments.parse_args()
    rounds, steps = options.rounds, options.steps
    torch.set_num_threads(2)
    versions = f"jax {jax.__version__}, torch {torch.__version__}, transformers {transformers.__version__}"
    here = processor()
    print(f"{versions}; {here}")
    result: dict = {
        "versions": versions,
        "processor": here,
        "batch": BATCH,
        "length": LENGTH,
        "steps_per_round": steps,
        "cases": {},
    }

    attention_kind, adam = fastest_peer(max(1, steps // 4))
    result["peer"] = {"attention": attention_kind, "adam": adam}
    print(
        f"  chosen: {attention_kind}, {adam}\n\nMilliseconds per step{'pdjax':>26}{'':9}{'peer':>9}{'':8} peer / pdjax"
    )
    print(f"  {'':38} {'median':>8} {'min':>8} {'median':>8} {'min':>8} {'medians':>7} {'pairs':>7}")
    teacher = model(TEACHER_HEADS)
    cases = {
        "teacher (8 heads), labels": (TEACHER_HEADS, None, 1),
        "distillation, 2-head student": (STUDENT_HEADS, teacher, 1),
        "distillation, 3 replicas, shared batch": (STUDENT_HEADS, teacher, 3),
    }
    for name, (heads, teacher, replicas) in cases.items():
        theirs = peer(heads, teacher is not None, replicas, steps, attention_kind, adam)
        timings = alternate({"peer": theirs, "pdjax": ours(heads, teacher, replicas, steps)}, rounds)
        result["cases"][name] = compared(name, timings["peer"], timings["pdjax"])

    run = ours(STUDENT_HEADS, teacher, 1, steps, checkpoints=4)
    curricula = {"one-shot": ((0, *[2**30] * 3), (3,) * 4), "progressive": ((0, 50, 100, 150), (0, 1, 2, 3))}
    timings = alternate({name: functools.partial(run, *curriculum) for name, curriculum in curricula.items()}, rounds)
    pairs = median_of_ratios(timings["progressive"], timings["one-shot"])
    print(
        f"\nProgressive / one-shot, the same program: {pairs:.3f} (pairs), medians "
        f"{timings['progressive'].median:.2f} / {timings['one-shot'].median:.2f} ms"
    )
    result["progressive_over_one_shot"] = pairs

    print("\nWhere this package's time goes, ms (each part repeated in a compiled loop of its own):")
    batch = TASK.sample(jax.random.key(0), BATCH)
    pieces = {
        f"{heads} heads: {name}": run
        for heads in (TEACHER_HEADS, STUDENT_HEADS)
        for name, run in parts(model(heads), fresh(model(heads), LENGTH), batch, ADAM, steps).items()
    }
    timings = alternate(pieces, rounds)
    for name, timing in timings.items():
        print(f"  {name:44} {timing.median:8.2f} {timing.minimum:8.2f}")
    result["parts"] = {name: timing.rounds for name, timing in timings.items()}

    peak = product_peaks()["XLA"]
    large, small = matmul_flops(model(TEACHER_HEADS), batch), matmul_flops(model(STUDENT_HEADS), batch)
    counts = [3 * large, large + 3 * small, large + 9 * small]  # a backward pass is two forward passes
    result["gflops"] = {"peak": peak}
    print(f"\nMatrix products, GFLOP/s by the fastest round (a large product alone reaches {peak:.0f}):")
    for (name, case), count in zip(result["cases"].items(), counts, strict=True):
        result["gflops"][name] = count / min(case["pdjax"]) / 1e6
        print(f"  {name:44} {result['gflops'][name]:8.1f}")

    result["samples_per_second"] = sampling()
    print("\nGrammar sampler, sequences per second:")
    for name, rate in result["samples_per_second"].items():
        print(f"  {name:44} {rate:8.0f}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
