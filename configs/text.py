"""Progressive distillation of BERT on natural language (figure 6 of the paper, section 4.2 and appendix F).

Claim: N. The loss of the teacher has three phases, its M_robust peaks in the middle one, and progressive students reach
a higher accuracy on masked tokens than one-shot ones; F1.

Command, of which the first line fetches six novels of Jane Austen and the plays and poems of Shakespeare, 9 MB, and
prepares them as rows of 16, with a vocabulary of 1024 tokens (``text`` extra, 15 seconds)::

    python launch/prose.py runs/prose --prepare runs/corpora/prose
    python -m pdjax.main --config=configs/text.py

``:smoke`` is half a minute on Python's own reference, which needs no download; ``:tune`` chooses each strategy's
learning rate and kappa by students of the teacher 100, and ``:study`` compares them over 5 fresh teachers, so far at
the defaults; ``:paper`` has the paper's sizes, on a corpus that docs/text.md says how to prepare. For text of your own
write a configuration like this one, with its corpus (docs/text.md).

``:folder:TEACHER`` is for a BERT of your own: a folder of its checkpoints in Hugging Face's format, or of one, as in
configs/checkpoints.py, with its tokenizer's files. The prose is prepared with that vocabulary, 15 seconds, and a
student with half of the teacher's heads learns from it; ``:folder:TEACHER:TEXT`` takes a folder of your own text.

Cost: 13.5 minutes on two CPU cores (AMD EPYC); predicted, and not run: ``:tune`` 50, ``:study`` 55. The default's rate
and curriculum were chosen by an earlier ``:tune``, with one rate for all (docs/results/text).

Expected (docs/results/text): the teacher's loss rests near 5.4 nats until step 750 and falls to 4.2 by step 1200;
students reach an accuracy of 0.21 from labels, 0.30 and 0.32 from the final teacher at temperatures 1e-20 and 1, and
0.29 and 0.32 from four of its checkpoints. N holds for the phases, and fails for M_robust, which does not fall again,
and for the students.

The paper says that the optimizer is that of its other experiments with a peak rate of 1e-4, and neither how many steps
nor of how many sequences: ``:paper`` has those of section D.6, 8000 steps of 512.
"""

import dataclasses
import json
import os
import platform
from pathlib import Path
from pydoc_data.topics import topics

from ml_collections import ConfigDict

from pdjax.configuration import configure
from pdjax.distill.losses import Distillation, Labels
from pdjax.distill.schedules import EqualSplit, TeacherSplit
from pdjax.distill.selection import Equal
from pdjax.distill.strategy import Strategy
from pdjax.errors import UserError, require
from pdjax.experiment import Comparison, Experiment, Loop, Probes, Report, StudentTraining, TeacherTraining, Tuning
from pdjax.models.bert import Bert
from pdjax.probes.agreement import AgreementProbe
from pdjax.probes.ngrams import NgramProbe
from pdjax.protocol import STAGES, Plan
from pdjax.tasks.text import Prepared, TextTask
from pdjax.text.corpus import RECORD
from pdjax.text.prepare import Preparation, prepare
from pdjax.text.sources import Source
from pdjax.text.vocabulary import vocabulary_digest, write_vocabulary
from pdjax.train.optimizer import Adam
from pdjax.train.sharding import MeshSizes, Placement
from pdjax.train.state import MeanOver
from pdjax.train.step import Evaluation
from pdjax.weights.checkpoint import read_config, student_of
from pdjax.weights.describe import architecture_of
from pdjax.weights.series import series_of
from pdjax.weights.tokens import lowercases, tokens_of

REPORT = Report(
    title="Masked prediction of text with BERT",
    question="Does a small BERT predict masked words better when it learns from a larger one’s checkpoints than from "
    "its final state alone, or from labels?",
    paper="Panigrahi et al. (ICLR 2025) report that it does, on Wikipedia and Books (figure 6, right).",
    paper_figures={
        "teacher": "figure 6 (left)",
        "ngrams": "figure 6 (middle)",
        "training_": "figure 6 (right)",
    },
    main_figure="training_",
)
PROSE = "runs/prose"
"""The text that launch/prose.py fetches."""

MOST_UNKNOWN = 0.1
"""Of the tokens of a text: with more it is none that the teacher was trained on."""

ADAM = Adam(clip_norm=1.0, beta2=0.95)
SHARP, SOFT = Distillation(temperature=1e-20), Distillation(temperature=1.0)
PROBED = ("labels", "one_shot", "progressive")


@dataclasses.dataclass(frozen=True)
class Size:
    """What tells sizes apart; the defaults are a laptop's."""

    name: str = "text"
    decides: bool = True
    optimized: bool = True
    seed: int = 0  # of the teacher, and of batches that students share
    student_seeds: tuple[int, ...] = (0, 1, 2)
    corpus: str = "runs/corpora/prose"
    vocabulary: int = 1024  # of a corpus that is not there yet: programs can be planned without one
    length: int = 16
    layers: int = 2
    head_dim: int = 32
    teacher_heads: int = 4
    student_heads: int = 2
    teacher_batch: int = 128
    student_batch: int = 128
    teacher_rate: float = 2e-3
    student_rates: tuple[float, ...] = (4e-3,)
    teacher_steps: int = 3000
    checkpoint_every: int = 250
    budgets: tuple[int, ...] = (2000,)
    progressive: int = 4  # equally spaced checkpoints ...
    kappa: float = 0.5  # ... over this share of the teacher's length
    chunk: int = 50
    evaluate_every: int = 100
    evaluation: tuple[int, int] = (8, 256)
    student_checkpoint_every: int | None = 500
    ngrams: NgramProbe = NgramProbe((2, 3, 4, 5), num_sentences=256, num_positions=2, batch_size=128)
    scan_layers: bool = False
    vocabulary_block: int | None = None
    mean_over: MeanOver = "batch"  # as the authors' code; the paper's equations 3 and 4 have sequences first
    data_devices: int = 1


SIZES = {
    "": Size(),
    "paper": Size(
        name="text-paper",
        corpus="runs/corpora/wikipedia-books",
        vocabulary=30_522,
        length=512,
        layers=12,
        head_dim=64,
        teacher_heads=12,
        student_heads=4,
        teacher_batch=512,
        student_batch=512,
        teacher_rate=1e-4,
        student_rates=(1e-4,),
        teacher_steps=8000,
        checkpoint_every=500,
        budgets=(2000, 4000, 8000),
        progressive=8,
        kappa=1.0,
        chunk=100,
        evaluation=(8, 512),
        student_checkpoint_every=1000,
        ngrams=NgramProbe((2, 3, 4, 5, 10, 20), num_sentences=1024, num_positions=2, batch_size=128),
        scan_layers=True,
        vocabulary_block=2048,
        mean_over="sequence",
        data_devices=-1,
    ),
    "smoke": Size(
        name="text-smoke",
        decides=False,
        optimized=False,
        layers=1,
        head_dim=4,
        teacher_heads=2,
        teacher_batch=8,
        student_batch=8,
        teacher_steps=16,
        checkpoint_every=4,
        budgets=(8,),
        progressive=2,
        chunk=4,
        evaluate_every=4,
        evaluation=(2, 8),
        student_checkpoint_every=4,
        ngrams=NgramProbe((2, 3), num_sentences=8, num_positions=2, batch_size=16),
        scan_layers=True,
        vocabulary_block=100,
    ),
}


HALF_OR_WHOLE = (TeacherSplit(0.5), TeacherSplit(1.0))
PLAN = Plan(
    rates=(2e-3, 4e-3, 8e-3),
    schedules={"progressive": HALF_OR_WHOLE, "progressive_soft": HALF_OR_WHOLE},
    tuned=("labels", "one_shot", "one_shot_soft", "progressive", "progressive_soft"),
    tuning_students=(100, 101),
    teachers=(200, 201, 202, 203, 204),
    students=(200, 201),
)
PLANS = {
    "": PLAN,
    "smoke": dataclasses.replace(
        PLAN,
        rates=(2e-3, 4e-3),
        schedules={},
        tuning_students=(100,),
        students=(200,),
        grid=Tuning(2.0, 2e-3, 4e-3),  # which does not grow: every size of it is compiled
    ),
    "paper": dataclasses.replace(PLAN, rates=(5e-5, 1e-4, 2e-4), grid=Tuning(2.0, lowest=1e-6)),
}
"""How sizes are tuned and studied. All was fixed before any of these seeds was run."""


def get_config(variant: str = "") -> ConfigDict:
    """Returns the experiment: '' for a laptop, 'smoke' for a test of seconds, 'paper' for the paper's sizes.

    'tune' and 'study' ('smoke-tune', 'paper-study', ...): see ``pdjax.protocol``; 'folder:TEACHER' has somebody's
    checkpoints as teachers.
    """
    name, _, rest = variant.partition(":")
    if name == "folder":
        teacher, _, text = rest.partition(":")
        return configure(folder_experiment(teacher, text or PROSE))
    base, _, stage = variant.rpartition("-")
    if base in PLANS and stage in STAGES:
        return configure(STAGES[stage](experiment(SIZES[base], corpus_of(base)), PLANS[base]))
    if variant not in SIZES:
        variants = sorted([*SIZES, "folder:TEACHER"])
        raise ValueError(f"expected configs/text.py with one of {variants} behind a colon; found {variant!r}")
    return configure(experiment(SIZES[variant], corpus_of(variant)))


def corpus_of(variant: str) -> Prepared:
    """Returns the corpus of a size, as far as it is there."""
    size = SIZES[variant]
    if variant == "smoke":
        return smoke_corpus()
    if (Path(size.corpus) / RECORD).exists():
        return Prepared.of(size.corpus)
    return Prepared(size.corpus, None, size.vocabulary, size.length)


def smoke_corpus() -> Prepared:
    """Prepares, unless that is done, what every Python brings along: its own reference, half a megabyte of English."""
    directory = Path(f"runs/corpora/python-{platform.python_version()}")
    documents = directory / "topics.jsonl"
    if not documents.exists():
        directory.mkdir(parents=True, exist_ok=True)
        partial = directory / f"{os.getpid()}.partial"
        partial.write_text("".join(json.dumps({"text": text}) + "\n" for text in topics.values()))
        os.replace(partial, documents)
    sources = (Source("python", str(documents)),)
    prepare(directory / "corpus", Preparation(sources, vocabulary=400, length=24, held_out=0.1))
    return Prepared.of(str(directory / "corpus"))


def experiment(size: Size, corpus: Prepared) -> Experiment:
    """Returns the experiment of a size on a corpus."""
    student = Bert(
        size.layers,
        size.student_heads,
        size.head_dim,
        scan_layers=size.scan_layers,
        vocabulary_block=size.vocabulary_block,
    )
    strategies = (
        Strategy("labels", Labels()),
        Strategy("one_shot", SHARP),
        Strategy("one_shot_soft", SOFT),
        Strategy("progressive", SHARP, TeacherSplit(size.kappa), Equal(size.progressive)),
        Strategy("progressive_soft", SOFT, TeacherSplit(size.kappa), Equal(size.progressive)),
    )
    return Experiment(
        name=size.name,
        seed=size.seed,
        task=TextTask(corpus),
        teacher=dataclasses.replace(student, num_heads=size.teacher_heads),
        student=student,
        teacher_training=TeacherTraining(
            seed=size.seed,
            steps=size.teacher_steps,
            batch_size=size.teacher_batch,
            learning_rate=size.teacher_rate,
            checkpoint_every=size.checkpoint_every,
            optimizer=ADAM,
            mean_over=size.mean_over,
        ),
        student_training=StudentTraining(
            seeds=size.student_seeds,
            learning_rates=size.student_rates,
            budgets=size.budgets,
            batch_size=size.student_batch,
            checkpoint_every=size.student_checkpoint_every,
            optimizer=ADAM,
            mean_over=size.mean_over,
        ),
        strategies=strategies,
        comparisons=(
            Comparison("all", "The strategies", tuple(strategy.name for strategy in strategies), "figure 6 (right)"),
        ),
        probes=Probes(
            (size.ngrams, AgreementProbe(*size.evaluation)),
            students=() if size.student_checkpoint_every is None else PROBED,
        ),
        evaluation=Evaluation(size.evaluate_every, *size.evaluation),
        loop=Loop(size.chunk, save_every=4 * size.chunk, optimized=size.optimized),
        placement=Placement(MeshSizes(data=size.data_devices)),
        report=dataclasses.replace(REPORT, decides=size.decides),
    )


def folder_experiment(source: str, text: str) -> Experiment:
    """Returns the experiment of a BERT's checkpoints in a folder, on a folder of text.

    Raises:
      UserError: the checkpoints cannot be read, are of another model, or have no tokenizer; there is no text.
    """
    require(source != "", "a teacher behind configs/text.py:folder:", "none", "write its folder there")
    series = series_of(source)
    folder = series[-1].folder
    if (tokens := tokens_of(folder)) is None:
        raise UserError(f"the tokenizer of the teacher in {folder}", "none", "copy its vocab.txt there")
    teacher, _, positions = architecture_of(read_config(folder), len(tokens))
    if not isinstance(teacher, Bert):
        raise UserError(f"a BERT in {folder}", type(teacher).__name__, "take a BERT: text has its tokens here")
    remedy = f"fetch some: python launch/prose.py {PROSE}" if text == PROSE else "name another folder"
    require(Path(text).exists(), f"text in {text}", "nothing", remedy)
    corpus = folder_corpus(tokens, lowercases(folder), text, min(64, positions))
    teacher = dataclasses.replace(teacher, scan_layers=True, vocabulary_block=2048)
    courses = (Strategy("progressive", SHARP, EqualSplit(), Equal(min(4, len(series)), nearest=True)),)
    strategies = (
        Strategy("labels", Labels()),
        Strategy("one_shot", SHARP),
        Strategy("one_shot_soft", SOFT),
        *(courses if len(series) > 1 else ()),
    )
    return Experiment(
        name="text-folder",
        task=TextTask(corpus),
        teacher=teacher,
        student=student_of(teacher),
        teacher_training=TeacherTraining(trajectory=source),
        student_training=StudentTraining(
            learning_rates=(1e-3,), budgets=(1000,), batch_size=32, checkpoint_every=500, optimizer=ADAM
        ),
        strategies=strategies,
        comparisons=(Comparison("strategies", "The strategies", tuple(strategy.name for strategy in strategies)),),
        probes=Probes((NgramProbe((2, 3, 4, 5), num_sentences=128, num_positions=2, batch_size=64),)),
        evaluation=Evaluation(100, 8, 64),
        loop=Loop(chunk_steps=25, save_every=100),
        report=Report(
            title="Masked prediction of text by students of a given BERT",
            question="Does a smaller BERT learn more from the checkpoints of a given one than from the last one alone, "
            "or from labels?",
        ),
    )


def folder_corpus(tokens: tuple[str, ...], lowercase: bool, text: str, length: int) -> Prepared:
    """Prepares, unless that is done, text with the vocabulary of a teacher.

    Raises:
      UserError: it is in another language than the teacher's, or something is wrong with a file.
    """
    directory = Path(f"runs/corpora/{Path(text).name}-{vocabulary_digest(tokens)[:8]}-{length}")
    vocabulary = directory.with_name(f"{directory.name}.vocab.txt")
    if not vocabulary.exists():
        vocabulary.parent.mkdir(parents=True, exist_ok=True)
        partial = vocabulary.with_name(f"{vocabulary.name}.{os.getpid()}.partial")
        write_vocabulary(partial, tokens)
        os.replace(partial, vocabulary)
    corpus = prepare(directory, Preparation((Source("text", text),), str(vocabulary), length, lowercase))
    require(
        corpus.unknown_share < MOST_UNKNOWN,
        f"text in {text} of which at most {MOST_UNKNOWN:.0%} are [UNK] to the teacher",
        f"{corpus.unknown_share:.0%}",
        "name a folder of text in its language",
    )
    return Prepared.of(str(directory))
