"""Seeds faults into a copy of the repository, one at a time, and says which test catches each.

What for: a suite is worth the faults that it catches. Before and after tests are merged or removed, the table says
whether anything that matters slips through; ``--tree`` puts the same faults into another checkout, so that the suites
of two commits can be compared. The faults are subtle ones of the kinds that happen, spread over the package: off by
one, a wrong axis or sign, one random draw for two purposes, an error that nobody hears of.

    python tests/seeded_faults.py                    # all of them
    python tests/seeded_faults.py --only write-in-place rules-not-equally-likely
    python tests/seeded_faults.py --nearest-only     # without the whole suite for those that the nearest tests pass
    python tests/seeded_faults.py --list             # checks that every patch applies and compiles; runs no test
    python tests/seeded_faults.py --tree ../other    # the tracked files of another checkout, with its own tests

A fault is tried on the test files that are most likely to catch it, and if these pass on all tests: ``SURVIVED`` is
said of the whole suite. A test that fails without the fault as well catches nothing, nor does a patch that does not
apply, or whose module cannot be imported: they get ``NO VERDICT``. The exit code is 0 if all faults were caught.

Cost: for each fault its nearest tests up to the first that fails, and that one again without the fault, in one process;
for each survivor the whole suite in one process. Faults with an ``--only`` of their own may run beside each other.
pytest does not collect this file, and ``.ci/run`` leaves it out, but for a test that every patch applies.
"""

import argparse
import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

LIMIT_SECONDS = 2 * 3600
"""Of one run of pytest: a fault may make a test wait for ever."""


class Fault(NamedTuple):
    """A change of one place of one file that a test must notice."""

    name: str
    breaks: str  # in one phrase
    file: str
    old: str  # occurs exactly once
    new: str
    nearest: tuple[str, ...]  # test files that are most likely to catch it


FAULTS = (
    # What a student learns from, and when.
    Fault(
        "curriculum-switches-late",
        "a checkpoint is used one step too long",
        "pdjax/distill/curriculum.py",
        "return jnp.sum(starts <= step) - 1",
        "return jnp.maximum(jnp.sum(starts < step) - 1, 0)",
        ("tests/distill/test_curriculum.py", "tests/train/test_step.py"),
    ),
    Fault(
        "kappa-in-binary",
        "starts are decided by the binary value of kappa instead of the decimal that was written",
        "pdjax/distill/curriculum.py",
        "fractions.Fraction(str(kappa)) * teacher_length",
        "fractions.Fraction(kappa) * teacher_length",
        ("tests/distill/test_curriculum.py",),
    ),
    Fault(
        "block-switches-early",
        "within a block of steps every step asks the teacher of the next one",
        "pdjax/train/chunk.py",
        "teacher.checkpoint(teacher.slot_at(starts, step + offset))",
        "teacher.checkpoint(teacher.slot_at(starts, step + offset + 1))",
        ("tests/train/test_blocked.py",),
    ),
    Fault(
        "slots-swapped",
        "the two streamed checkpoints change places after an odd number of switches",
        "pdjax/io/teacher_source.py",
        "needed.get(first + (first + slot) % 2, needed[first])",
        "needed.get(first + slot, needed[first])",
        ("tests/io/test_teacher_source.py", "tests/stages/test_sources.py"),
    ),
    Fault(
        "middle-at-the-start",
        "a comparison the wrong way round puts the middle of the loss's drop at its start",
        "pdjax/distill/phases.py",
        "np.argmax(loss[first : last + 2] <= halfway)",
        "np.argmax(loss[first : last + 2] >= halfway)",
        ("tests/distill/test_phases.py",),
    ),
    Fault(
        "final-as-intermediate",
        "the final teacher may be selected as its own intermediate checkpoint",
        "pdjax/distill/selection.py",
        "before_final = available[:-1]",
        "before_final = available",
        ("tests/distill/test_selection.py",),
    ),
    Fault(
        "mean-before-median",
        "adaptive students go by the median of means over n instead of the mean of medians",
        "pdjax/distill/adaptive.py",
        'jnp.median(distances[:, MEASURES.index("robust")], axis=-1).mean(axis=-1)',
        'jnp.median(distances[:, MEASURES.index("robust")].mean(axis=-2), axis=-1)',
        ("tests/stages/test_ablations.py",),
    ),
    # Losses, steps and optimizer.
    Fault(
        "temperature-on-the-student",
        "the temperature softens the student's distribution as well",
        "pdjax/distill/losses.py",
        "jax.nn.log_softmax(student_logits)",
        "jax.nn.log_softmax(student_logits / temperature)",
        ("tests/distill/test_losses.py",),
    ),
    Fault(
        "mean-over-all-places",
        "sums over the places that count are divided by the number of all places",
        "pdjax/types.py",
        "return Mean(jnp.sum(values * weights), jnp.sum(weights))",
        "return Mean(jnp.sum(values * weights), jnp.sum(jnp.ones_like(weights)))",
        ("tests/train/test_step.py", "tests/tasks/test_language.py"),
    ),
    Fault(
        "dropout-in-evaluation",
        "dropout stays on while models are evaluated",
        "pdjax/train/step.py",
        "program.model.apply(params, batch.inputs)), None, batch",
        'program.model.apply(params, batch.inputs, named_key(seed, "dropout", index))), None, batch',
        ("tests/train/test_step.py", "tests/train/test_loop.py"),
    ),
    Fault(
        "held-out-is-training-data",
        "models are evaluated on the batches that they were trained on",
        "pdjax/train/step.py",
        "named_key(seed, EVALUATION, index)",
        "named_key(seed, program.data_name, index)",
        ("tests/train/test_step.py", "tests/train/test_loop.py"),
    ),
    Fault(
        "exact-gradient-uphill",
        "the exact gradient of Algorithm 1 has the sign that claim B.3 prints",
        "pdjax/train/two_stage.py",
        "return -0.5 * a_W[None]",
        "return 0.5 * a_W[None]",
        ("tests/train/test_two_stage.py",),
    ),
    Fault(
        "second-stage-moves-twice",
        "the first step of the second stage is taken by the rule of the first",
        "pdjax/train/two_stage.py",
        "return jax.lax.cond(step < self.first_steps, first, second)",
        "return jax.lax.cond(step <= self.first_steps, first, second)",
        ("tests/train/test_two_stage.py",),
    ),
    Fault(
        "samples-met-twice",
        "a search counts the first block of samples after every size of its grid twice",
        "pdjax/probes/samples.py",
        "blocks = jnp.array([size // block, next_size // block])",
        "blocks = jnp.array([max(size // block - 1, 0), next_size // block])",
        ("tests/probes/test_samples.py",),
    ),
    Fault(
        "decay-of-biases",
        "parameters decay, biases too, though no configuration says so",
        "pdjax/train/optimizer.py",
        "lambda p, u: p - scale * u",
        "lambda p, u: p - scale * (u + 1e-3 * p)",
        ("tests/train/test_step.py",),
    ),
    Fault(
        "replicas-share-their-batches",
        "replicas that should draw batches by their own seed draw them by the run's",
        "pdjax/train/chunk.py",
        "draw_batch(program, seed, state.step, own))",
        "draw_batch(program, data_seed, state.step, own))",
        ("tests/train/test_step.py", "tests/train/test_replicas.py"),
    ),
    Fault(
        "warm-up-a-step-early",
        "the learning rate is that of the next step during the warm-up",
        "pdjax/train/optimizer.py",
        "rising = step / jnp.maximum(warmup, 1)",
        "rising = (step + 1) / jnp.maximum(warmup, 1)",
        ("tests/train/test_optimizer.py",),
    ),
    Fault(
        "answers-of-another-curriculum",
        "students trained together hear the checkpoints in the order of their slots, not of their curricula",
        "pdjax/train/chunk.py",
        "return jax.tree.map(lambda leaf: leaf[places], outputs)",
        "return outputs",
        ("tests/stages/test_together.py",),
    ),
    Fault(
        "short-run-of-another-curriculum",
        "a short run is taken for the beginning of any long one that begins with the same checkpoint",
        "pdjax/stages/together.py",
        "count = sum(start < budget for start in self.course.starts)",
        "count = min(1, len(self.course.starts))",
        ("tests/stages/test_together.py",),
    ),
    Fault(
        "saved-rows-of-all",
        "runs trained together go on from the first one's states",
        "pdjax/train/loop.py",
        "leaf[np.array(run.job.rows)] = part",
        "leaf[np.array(run.job.rows)] = parts[0][: len(part)]",
        ("tests/stages/test_together.py",),
    ),
    Fault(
        "longest-string-cut",
        "a batch whose longest string has one position too many counts as fitting",
        "pdjax/train/narrow.py",
        'batch.inputs["valid"][..., bounds.length :]',
        'batch.inputs["valid"][..., bounds.length + 1 :]',
        ("tests/train/test_narrow.py",),
    ),
    Fault(
        "pieces-weigh-alike",
        "of a batch in pieces the gradient is the mean of sums by piece, however many places count in all",
        "pdjax/train/chunk.py",
        "over_replicas(mean)(metrics.loss.count, sums)",
        "over_replicas(mean)(0 * metrics.loss.count + count, sums)",
        ("tests/train/test_step.py",),
    ),
    # Models.
    Fault(
        "next-token-leaks",
        "causal attention sees one token ahead",
        "pdjax/models/decoder.py",
        "jnp.tri(length, dtype=bool)",
        "jnp.tri(length, k=1, dtype=bool)",
        ("tests/models/test_gpt2.py", "tests/tasks/test_language.py"),
    ),
    Fault(
        "positions-shifted",
        "every token has the position embedding of the next one",
        "pdjax/models/layers.py",
        "embedding.table[:length].T",
        "jnp.roll(embedding.table[:length], -1, axis=0).T",
        ("tests/models/test_gpt2.py",),
    ),
    Fault(
        "epsilon-of-another-model",
        "BERT's layer norms have the epsilon of GPT-2",
        "pdjax/models/bert.py",
        "epsilon: Positive = 1e-12",
        "epsilon: Positive = 1e-5",
        ("tests/models/test_bert.py",),
    ),
    Fault(
        "gradient-without-its-mean",
        "the hand-written gradient of softmax leaves out what normalisation takes away",
        "pdjax/models/attention.py",
        "@ scaled_HxBxCxL - inner_HxBx1xL)",
        "@ scaled_HxBxCxL)",
        ("tests/models/test_attention.py",),
    ),
    Fault(
        "kernel-not-transposed",
        "a square kernel of Hugging Face's BERT goes in and out without its transposition",
        "pdjax/weights/layouts.py",
        '.transform.dense", transposed=True)',
        '.transform.dense", transposed=False)',
        ("tests/models/test_bert.py",),
    ),
    Fault(
        "heads-in-one-run",
        "GPT-NeoX's fused query, key and value are read as GPT-2's, not head by head",
        "pdjax/weights/layouts.py",
        "transposed=True, groups=of.num_heads)",
        "transposed=True)",
        ("tests/weights/test_layouts.py",),
    ),
    Fault(
        "last-query-turned-as-the-first",
        "a model that decides at its last position turns the query there by the angle of the first",
        "pdjax/models/decoder.py",
        "positions[:, -1:]",
        "positions[:, :1]",
        ("tests/models/test_gpt_neox.py",),
    ),
    Fault(
        "hidden-string-sees-the-others",
        "a string that is hidden from itself sees the other strings of its row",
        "pdjax/models/attention.py",
        "3 * HIDDEN)",
        "HIDDEN)",
        ("tests/models/test_segments.py",),
    ),
    Fault(
        "layers-drop-alike",
        "all scanned layers use one dropout key",
        "pdjax/models/stack.py",
        'jax.random.split(model.make_rng("dropout"), num_layers)',
        'jax.random.split(model.make_rng("dropout"), 1).repeat(num_layers)',
        ("tests/models/test_scan.py",),
    ),
    Fault(
        "loss-in-bfloat16",
        "a model that computes in bfloat16 has its loss summed in it",
        "pdjax/models/base.py",
        "return logits if isinstance(logits, Factored) else logits.astype(jnp.float32), intermediates",
        "return logits, intermediates",
        ("tests/models/test_compute.py",),
    ),
    Fault(
        "contraction-split-across",
        "the sharded feed-forward layer splits its second kernel along the axis that is not summed over",
        "pdjax/train/sharding.py",
        '(r"contract/kernel$", (MODEL, None))',
        '(r"contract/kernel$", (None, MODEL))',
        ("tests/train/test_sharding.py", "tests/train/test_mesh.py"),
    ),
    # Tasks.
    Fault(
        "one-draw-twice",
        "the draw that decides what replaces a token also decides which random token it is",
        "pdjax/tasks/masking.py",
        "random_token = (choice * num_ordinary)",
        "random_token = (action * num_ordinary)",
        ("tests/tasks/test_masking.py",),
    ),
    Fault(
        "rules-not-equally-likely",
        "of three rules or more the first and the last are drawn half as often",
        "pdjax/tasks/derivation.py",
        "rule = (uniform * tables.num_rules[symbols]).astype(jnp.int32)",
        "rule = jnp.round(uniform * (tables.num_rules[symbols] - 1)).astype(jnp.int32)",
        ("tests/tasks/test_derivation.py",),
    ),
    Fault(
        "way-to-another-leaf",
        "the levels of a hierarchy are the features on the way to the last class instead of the first",
        "pdjax/tasks/parity.py",
        "self.features[2**level - 1]",
        "self.features[2 ** (level + 1) - 2]",
        ("tests/tasks/test_parity.py", "tests/probes/test_monomials.py"),
    ),
    # Probes.
    Fault(
        "variation-without-its-half",
        "total variation is the whole L1 distance",
        "pdjax/probes/ngrams.py",
        "apart_RxCxP = 0.5 * jnp.sum",
        "apart_RxCxP = jnp.sum",
        ("tests/probes/test_ngrams.py",),
    ),
    Fault(
        "places-in-the-padding",
        "positions to measure are drawn behind the ends of strings too",
        "pdjax/probes/contexts.py",
        "terminal = valid & (jnp.arange(valid.shape[1]) > 0)[None]",
        "terminal = jnp.broadcast_to((jnp.arange(valid.shape[1]) > 0)[None], valid.shape)",
        ("tests/probes/test_contexts.py",),
    ),
    Fault(
        "probe-tested-on-what-it-learned",
        "probes for non-terminals are tested on the strings that they were trained on",
        "pdjax/probes/nonterminals.py",
        'shown, params, "nonterminals held out"',
        'shown, params, "nonterminals"',
        ("tests/probes/test_nonterminals.py",),
    ),
    Fault(
        "divergence-the-other-way",
        "the divergence from the teacher is KL(model || teacher)",
        "pdjax/probes/agreement.py",
        "losses.distillation(logits, teacher_logits, 1.0)",
        "losses.distillation(teacher_logits, logits, 1.0)",
        ("tests/probes/test_agreement.py",),
    ),
    # Files, processes and the command line.
    Fault(
        "resumed-a-step-ahead",
        "a resumed run counts one step more than it has done",
        "pdjax/train/loop.py",
        "return sharding.put(saved[0], job.sweep.state)",
        "return sharding.put(saved[0]._replace(step=saved[0].step + 1), job.sweep.state)",
        ("tests/train/test_loop.py", "tests/train/test_parity_training.py"),
    ),
    Fault(
        "signal-does-not-save",
        "a run that a signal stops does not save what it says it has saved",
        "pdjax/train/loop.py",
        "if stopping is not None or step == run.job.description.budget or step % loop.save_every == 0:",
        "if step == run.job.description.budget or step % loop.save_every == 0:",
        ("tests/train/test_loop.py", "tests/test_main.py"),
    ),
    Fault(
        "write-in-place",
        "JSON is written into the file that readers have open",
        "pdjax/io/sealed.py",
        'partial = path.with_name(path.name + ".partial")',
        "partial = path",
        ("tests/io/test_sealed.py",),
    ),
    Fault(
        "lines-not-chained",
        "a line's digest says nothing of the lines before it: one that is lost is not noticed",
        "pdjax/io/sealed.py",
        'f"{before}{text}".encode()',
        'f"{text}".encode()',
        ("tests/io/test_sealed.py",),
    ),
    Fault(
        "state-and-records-apart",
        "a run goes on from a state although the records before it are not all there",
        "pdjax/io/writer.py",
        "Journal(path, kept, seal, directory)",
        "Journal(path, kept)",
        ("tests/io/test_writer.py",),
    ),
    Fault(
        "lock-let-go",
        "the lock of a working directory is let go before anything is written",
        "pdjax/io/lock.py",
        "        lock.acquire(blocking=False)\n",
        "        lock.acquire(blocking=False)\n        lock.release()\n",
        ("tests/io/test_lock.py",),
    ),
    Fault(
        "prng-of-the-environment",
        "the environment's random numbers are used, under the name of a configuration",
        "pdjax/io/surroundings.py",
        '    "jax_default_prng_impl": "threefry2x32",\n',
        "",
        ("tests/io/test_surroundings.py",),
    ),
    Fault(
        "values-not-compared",
        "of a restored array only the type is compared with its digest",
        "pdjax/io/store.py",
        'if digest != record["digests"][name]]',
        'if digest["dtype"] != record["digests"][name]["dtype"]]',
        ("tests/io/test_store.py",),
    ),
    Fault(
        "students-of-another-teacher",
        "the identity of a run names the steps of its teachers but not their arrays",
        "pdjax/stages/runs.py",
        "teachers = [trajectory.digest(step) for step in course.teacher_steps]",
        "teachers = list(course.teacher_steps)",
        ("tests/stages/test_runs.py", "tests/test_main.py"),
    ),
    Fault(
        "every-process-writes",
        "each of several processes appends to the metrics of a run",
        "pdjax/io/writer.py",
        "    if not is_first():\n        return NoWriter()\n",
        "",
        ("tests/io/test_writer.py",),
    ),
    Fault(
        "unknown-key-accepted",
        "an unknown key of a configuration is accepted without a word",
        "pdjax/settings.py",
        'extra="forbid"',
        'extra="ignore"',
        ("tests/test_settings.py",),
    ),
    Fault(
        "failure-exits-with-0",
        "the command line swallows a training that failed: scripts take it for a success",
        "pdjax/main.py",
        'logger.error("failed: %s", error)\n        _end_others(1, error)\n        return 1',
        'logger.error("failed: %s", error)\n        _end_others(1, error)\n        return 0',
        ("tests/test_main.py",),
    ),
    Fault(
        "less-is-growth",
        "an experiment that asks for less or for other seeds is taken for one that has grown",
        "pdjax/io/workdir.py",
        " and {*before} <= {*now}",
        "",
        ("tests/stages/test_growing.py",),
    ),
    Fault(
        "grown-anew",
        "replicas that are there are trained once more, beside those that an experiment has grown by",
        "pdjax/stages/growing.py",
        "            left = [replica for replica in left if replica not in old.replicas]\n",
        "",
        ("tests/stages/test_growing.py",),
    ),
    Fault(
        "probes-of-whatever",
        "what probes have measured is taken for that of other models",
        "pdjax/stages/probes.py",
        "**revision, **models}",
        "**revision}",
        ("tests/stages/test_probing.py",),
    ),
    # Report and plan.
    Fault(
        "normal-for-student-t",
        "confidence intervals over few seeds have the quantile of a normal distribution",
        "pdjax/report/stats.py",
        "scipy.special.stdtrit(size - 1, 0.5 + CONFIDENCE / 2)",
        "scipy.special.ndtri(0.5 + CONFIDENCE / 2)",
        ("tests/report/test_stats.py",),
    ),
    Fault(
        "last-for-the-best",
        "a first checkpoint is judged by its last duration instead of its best",
        "pdjax/report/searches.py",
        "max(finished, key=lambda group: float(group.final().mean())) if complete else None",
        "finished[-1] if complete else None",
        ("tests/report/test_searches.py",),
    ),
    Fault(
        "ties-to-the-first",
        "of learning rates that end alike the first one counts instead of the faster",
        "pdjax/report/groups.py",
        "(round(float(mean.iloc[-1]), 3), float(mean.mean()))",
        "(round(float(mean.iloc[-1]), 3), 0.0)",
        ("tests/report/test_claims.py", "tests/report/test_figures.py"),
    ),
    Fault(
        "loops-count-once",
        "the plan counts the body of a compiled loop once",
        "pdjax/plan/hlo.py",
        '_work(module, _called(one, "body")).times(_trips(module, one))',
        '_work(module, _called(one, "body"))',
        ("tests/plan/test_hlo.py",),
    ),
)


class NoVerdict(Exception):  # noqa: N818 (it ends no run: one fault goes without)
    """A fault that cannot be judged; says why."""


def patched(fault: Fault, tree: Path) -> str:
    """Returns the file of a tree with a fault in it, which must compile."""
    path = tree / fault.file
    if not path.exists():
        raise NoVerdict(f"does not apply: no {fault.file}")
    text = path.read_text()
    count = text.count(fault.old)
    if count != 1:
        raise NoVerdict(f"does not apply: {fault.file} holds its text {count} times instead of once")
    text = text.replace(fault.old, fault.new)
    try:
        compile(text, fault.file, "exec")
    except SyntaxError as error:
        raise NoVerdict(f"does not compile: {error}") from error
    return text


def copy_tracked(tree: Path, target: Path) -> None:
    """Copies the tracked files of a checkout as they are there."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=tree, stdout=subprocess.PIPE, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (tree / name).is_file():  # else it is removed, but not from the index yet
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(tree / name, target / name)


def run(copy: Path, *arguments: str) -> tuple[int, str]:
    """Runs Python on a copy, whose package comes before one that is installed; returns the exit code and the output."""
    environment = os.environ | {"PYTHONPATH": str(copy), "JAX_PLATFORMS": "cpu"}
    with tempfile.TemporaryFile("w+") as output:  # not a pipe: processes that a test leaves behind may keep it open
        command = [sys.executable, *arguments]
        try:
            code = subprocess.run(
                command, cwd=copy, env=environment, stdout=output, stderr=subprocess.STDOUT, timeout=LIMIT_SECONDS
            ).returncode
        except subprocess.TimeoutExpired as error:
            raise NoVerdict(f"took longer than {LIMIT_SECONDS} s: {' '.join(arguments)}") from error
        output.seek(0)
        return code, output.read()


def first_failure(copy: Path, tests: Sequence[str] = ()) -> str | None:
    """Returns the id of the first test that fails, of some files or tests or of all; None if none does."""
    code, output = run(copy, "-m", "pytest", "-x", "-q", "-n0", "--color=no", *tests)
    if code == 0:
        return None
    # Of a file that cannot be collected no test is named.
    match = re.search(r"^(?:FAILED|ERROR) (\S+::[^\s\[]+(?:\[.*?\])?)(?: - .*)?$", output, re.MULTILINE)
    if code != 1 or match is None:
        last = output.strip().splitlines()[-1:] or ["no output"]
        raise NoVerdict(f"pytest ended with {code}: {last[0]}")
    return match[1]


def judge(fault: Fault, tree: Path, passes: Callable[[str], bool], nearest_only: bool) -> str | None:
    """Returns the test that catches a fault; None if it survives.

    Args:
      fault: to seed.
      tree: a checkout.
      passes: whether a test passes in it without the fault.
      nearest_only: leave out the whole suite.
    """
    text = patched(fault, tree)
    with tempfile.TemporaryDirectory(prefix="pdjax-fault-") as directory:
        copy = Path(directory)
        copy_tracked(tree, copy)
        (copy / fault.file).write_text(text)
        module = ".".join(Path(fault.file).with_suffix("").parts).removesuffix(".__init__")
        code, output = run(copy, "-c", f"import {module}")
        if code:
            raise NoVerdict(f"cannot be imported: {output.strip().splitlines()[-1]}")
        nearest = [name for name in fault.nearest if (copy / name).exists()]
        caught = first_failure(copy, nearest) if nearest else None
        if caught is None and not nearest_only:
            caught = first_failure(copy)
    if caught is not None and not passes(caught):
        raise NoVerdict(f"{caught} fails without the fault too")
    return caught


def try_all(faults: Sequence[Fault], tree: Path, nearest_only: bool) -> dict[str, str]:
    """Tries faults one by one, saying what became of each; returns that by name."""
    survived = "SURVIVED the nearest tests" if nearest_only else "SURVIVED"
    results = {}
    with tempfile.TemporaryDirectory(prefix="pdjax-sound-") as directory:
        sound = Path(directory)
        copy_tracked(tree, sound)

        @functools.cache
        def passes(test: str) -> bool:
            return first_failure(sound, [test]) is None

        for fault in faults:
            try:
                results[fault.name] = judge(fault, tree, passes, nearest_only) or survived
            except NoVerdict as reason:
                results[fault.name] = f"NO VERDICT: {reason}"
            print(f"{fault.name}: {results[fault.name]}", flush=True)
    return results


def print_list(faults: Sequence[Fault], tree: Path) -> int:
    """Prints faults and whether their patches apply; returns how many do not."""
    wrong = 0
    for fault in faults:
        try:
            patched(fault, tree)
            print(f"{fault.name}: {fault.breaks} ({fault.file})")
        except NoVerdict as reason:
            wrong += 1
            print(f"{fault.name}: NO VERDICT: {reason}")
    print(f"{len(faults) - wrong} of {len(faults)} patches apply")
    return wrong


def print_table(faults: Sequence[Fault], results: dict[str, str]) -> int:
    """Prints what became of faults as a Markdown table; returns how many were not caught."""
    print("\n| fault | caught by |\n|---|---|")
    for fault in faults:
        cell = results[fault.name].replace("|", "\\|")
        print(f"| `{fault.name}`: {fault.breaks} | {cell} |")
    missed = sum(result.startswith(("SURVIVED", "NO VERDICT")) for result in results.values())
    print(f"| total | {len(faults) - missed} of {len(faults)} |")
    return missed


def main() -> int:
    """Parses the command line; returns 0 if all faults were caught (or apply, with --list), else 1."""
    parser = argparse.ArgumentParser(description="Seeds faults, one at a time, and says which test catches each.")
    names = [fault.name for fault in FAULTS]
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", default=names, help="some of the faults")
    parser.add_argument("--tree", type=Path, default=Path(__file__).parent.parent, help="the checkout to put them into")
    parser.add_argument("--nearest-only", action="store_true", help="leave out the whole suite")
    parser.add_argument("--list", action="store_true", help="print the faults, check that they apply, run nothing")
    options = parser.parse_args()
    faults, tree = [fault for fault in FAULTS if fault.name in options.only], options.tree.resolve()
    if options.list:
        return int(print_list(faults, tree) > 0)
    return int(print_table(faults, try_all(faults, tree, options.nearest_only)) > 0)


if __name__ == "__main__":
    sys.exit(main())
