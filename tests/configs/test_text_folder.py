"""configs/text.py:folder: somebody's BERT as the teacher on text, from a path alone."""

import json
import shutil
import string

import jax
import numpy as np
import pytest
import safetensors.numpy

from pdjax.io.records import read_run
from pdjax.models.bert import Bert
from pdjax.models.gpt2 import Gpt2
from pdjax.tasks.text import Prepared, TextTask
from pdjax.text.vocabulary import SPECIAL, write_vocabulary
from pdjax.weights.describe import config_of
from pdjax.weights.layouts import weights_of

LETTERS = [*string.ascii_lowercase, *string.punctuation]
TOKENS = (*SPECIAL, *LETTERS, *(f"##{letter}" for letter in LETTERS), "the", "un", "##able")
STEPS = (10, 20, 40)
TEACHER = Bert(1, 2, 4, tied_head=True, token_types=2)
POSITIONS = 24


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of three checkpoints of a BERT with their vocabulary."""
    folder = tmp_path_factory.mktemp("bert")
    task = TextTask(Prepared("nowhere", None, len(TOKENS), POSITIONS, (0, 1, 2, 3, 4)))
    inputs = jax.eval_shape(lambda rows: task.batch(jax.random.key(0), rows), task.example_shapes(1)).inputs
    inputs = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), inputs)
    for step in STEPS:
        place = folder / f"checkpoint-{step}"
        place.mkdir()
        params = TEACHER.build(task).init(jax.random.key(step), inputs)
        safetensors.numpy.save_file(weights_of(params, TEACHER), place / "model.safetensors")
        (place / "config.json").write_text(json.dumps(config_of(TEACHER, len(TOKENS), POSITIONS)))
        write_vocabulary(place / "vocab.txt", TOKENS)
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A directory to work in, with text where launch/prose.py leaves it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/prose").mkdir(parents=True)
    sentences = [f"Lady Number {i} was unable to see the {'un' * (i % 7)}known guest, and sat." for i in range(400)]
    (tmp_path / "runs/prose/novel.jsonl").write_text("".join(json.dumps({"text": s}) + "\n" for s in sentences))
    return tmp_path


def flags(root, source):
    return (
        f"--config={root}/configs/text.py:folder:{source}",
        "--workdir=runs/students",
        "--config.evaluation.num_batches=2",
        "--config.evaluation.batch_size=8",
        "--config.probes.ngrams.num_sentences=8",
        "--stage=teacher",
    )


def test_a_path_is_all_it_takes(call, root, trained, here, load_config_file):
    """The text is prepared with the teacher's tokens, and every checkpoint measured on it."""
    code, log = call(*flags(root, trained))
    assert code == 0, log
    config = load_config_file("text").folder_experiment(str(trained), "runs/prose")
    assert config.task.tokens == TOKENS
    assert config.task.num_positions == POSITIONS  # fewer than 64
    assert (config.student.num_heads, config.student.dimensions_per_head) == (1, 4)
    assert config.strategy("progressive").selection.count == 3
    curves = read_run(here / "runs/students/teacher").evaluation
    assert curves.steps.tolist() == list(STEPS)
    assert np.isfinite(curves.loss).all()

    def times():
        return {path: path.stat().st_mtime_ns for path in here.glob("runs/corpora/**/*") if path.is_file()}

    before = times()
    code, log = call(*flags(root, trained))
    assert code == 0, log
    assert times() == before


def test_one_checkpoint_has_no_progressive_students(trained, here, load_config_file):
    (here / "one").mkdir()
    shutil.copytree(trained / "checkpoint-40", here / "one/checkpoint-40")
    config = load_config_file("text").folder_experiment(str(here / "one"), "runs/prose")
    assert [strategy.name for strategy in config.strategies] == ["labels", "one_shot", "one_shot_soft"]


def test_text_of_ones_own(trained, here, load_config_file):
    (here / "runs/prose").rename(here / "mine")
    config = load_config_file("text").get_config(f"folder:{trained}:mine")
    assert config.task.corpus.directory.startswith("runs/corpora/mine-")


def other_family(folder):
    (folder / "config.json").write_text(json.dumps(config_of(Gpt2(1, 2, 4), len(TOKENS), POSITIONS)))


def cased(folder):
    (folder / "tokenizer_config.json").write_text(json.dumps({"strip_accents": False}))


def foreign(folder):
    with open("runs/prose/novel.jsonl", "w") as file:
        file.writelines(json.dumps({"text": f"{'Ж' * (i % 9 + 1)} д"}) + "\n" for i in range(400))


def without_mask(folder):
    write_vocabulary(folder / "vocab.txt", [f"{token}s" if token == "[MASK]" else token for token in TOKENS])


@pytest.mark.parametrize(
    ("source", "damage", "expected", "found"),
    [
        ("", None, "a teacher behind configs/text.py:folder:", "none"),
        ("nobody", None, "a folder of checkpoints", "which is none"),
        ("bert:nothing", None, "text in nothing", "name another folder"),
        ("bert", lambda folder: shutil.rmtree("runs/prose"), "text in runs/prose", "launch/prose.py runs/prose"),
        ("bert", lambda folder: (folder / "vocab.txt").unlink(), "the tokenizer of the teacher in", "none"),
        ("bert", other_family, "a BERT in", "Gpt2"),
        ("bert", cased, "a tokenizer that splits text as BERT's in", "strip_accents False with lowercase True"),
        ("bert", foreign, "at most 10% are [UNK] to the teacher", "100%"),
        ("bert", without_mask, "no [MASK]", ".vocab.txt"),
    ],
    ids=[
        "no path",
        "no folder",
        "no such text",
        "no prose",
        "no tokenizer",
        "family",
        "accents",
        "language",
        "no [MASK]",
    ],
)
def test_bad_input_is_one_line_and_nothing_is_begun(call, root, trained, here, source, damage, expected, found):
    shutil.copytree(trained, here / "bert")
    if damage is not None:
        damage(here / "bert/checkpoint-40")
    code, log = call(*flags(root, source))
    assert code == 2, log
    (line,) = [line for line in log.splitlines() if "error" in line]
    assert expected in line
    assert found in line
    assert not (here / "runs/students").exists()
