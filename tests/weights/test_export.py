"""Models of a finished experiment as folders for transformers: which are found, what is in them, what is refused."""

import dataclasses
import json
import shutil
from contextlib import closing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml

from pdjax.distill.losses import Distillation, HiddenMatching, Labels
from pdjax.distill.schedules import EqualSplit
from pdjax.distill.selection import Equal
from pdjax.distill.strategy import Strategy
from pdjax.errors import UserError
from pdjax.experiment import (
    Ablation,
    Experiment,
    Loop,
    SizedModel,
    SizePanel,
    Sizes,
    StudentTraining,
    TeacherTraining,
    Variant,
)
from pdjax.io.records import read_description, read_run
from pdjax.io.sealed import write_json
from pdjax.io.signals import Interrupt
from pdjax.io.workdir import read_experiment
from pdjax.models.bert import Bert, BertModule
from pdjax.models.gpt2 import Gpt2
from pdjax.models.mlp import Mlp
from pdjax.settings import plain
from pdjax.stages.exporting import export
from pdjax.stages.run import run_experiment
from pdjax.stages.students import open_checkpoints, students_shape
from pdjax.stages.teacher import open_trajectory, teacher_shape
from pdjax.tasks.parity import HierarchicalTask
from pdjax.tasks.pcfg import TOKENS, PcfgTask
from pdjax.train.step import Evaluation
from pdjax.weights import export as exporting
from pdjax.weights.describe import Described, architecture_of, config_of
from pdjax.weights.export import write_model
from pdjax.weights.files import open_weights
from pdjax.weights.layouts import params_of
from pdjax.weights.names import canonical
from pdjax.weights.tokens import tokens_of

STAGES = ("teacher", "students", "sizes", "ablations")


@pytest.fixture(scope="module")
def experiment():
    """Four steps of models of one layer; students of two losses in one run, of one with parameters, and of labels."""
    one_layer = Bert(1, 1, 4, vocabulary_rows=8)
    return Experiment(
        name="small",
        task=PcfgTask(root=10),
        teacher=Bert(1, 2, 4),
        student=one_layer,
        strategies=(
            Strategy("hard", schedule=EqualSplit(), selection=Equal(2)),
            Strategy("soft", Distillation(0.5), schedule=EqualSplit(), selection=Equal(2)),
            Strategy("matched", HiddenMatching()),
            Strategy("labels", Labels()),
        ),
        teacher_training=TeacherTraining(3, (5,), steps=4, batch_size=2, checkpoint_every=2),
        student_training=StudentTraining((0, 1), (1e-2, 2e-2), (4,), batch_size=2, checkpoint_every=2),
        sizes=Sizes((SizePanel("heads", (SizedModel("two", Bert(1, 2, 4)),)),), (0,), (1e-2,), steps=4, batch_size=2),
        ablations=(Ablation("width", "", (Variant("wide", {"student": plain(Bert(1, 1, 8))}),), ("hard",), (4,)),),
        evaluation=Evaluation(2, num_batches=1, batch_size=4),
        loop=Loop(2, save_every=2, optimized=False),
    )


@pytest.fixture(scope="module")
def workdir(experiment, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("small") / "work"
    run_experiment(experiment, workdir, STAGES, Interrupt())
    return workdir


def read_back(folder, vocabulary):
    """Returns the parameters of a folder as our own reading has them, and the settings that it finds."""
    described = architecture_of(json.loads((folder / "config.json").read_text()), vocabulary)
    weights, ignored = canonical(open_weights(folder), "bert")
    assert ignored == {}
    return params_of(weights, *described).params, described


def check_same(folder, expected, architecture):
    """The folder has these parameters, bit for bit, and says what model they are of."""
    params, described = read_back(folder, len(TOKENS))
    assert "cls.predictions.decoder.weight" not in open_weights(folder)  # tied: once in the file
    # Hugging Face's have types of tokens: zeros, where ours has none.
    assert not params.pop("token_types")["embedding"].any()
    jax.tree.map(np.testing.assert_array_equal, params, expected)
    found = described.architecture
    assert config_of(*described) == json.loads((folder / "config.json").read_text())
    assert (found.num_layers, found.num_heads, found.model_width, found.rows(7)) == (
        *(architecture.num_layers, architecture.num_heads),
        *(architecture.model_width, architecture.rows(7)),
    )


@pytest.mark.parametrize("step", [2, 4])
@pytest.mark.parametrize("seed", [3, 5])
def test_teachers(experiment, workdir, tmp_path, seed, step):
    folder = export(workdir, tmp_path / "out", "teacher", seed, step=step)
    with closing(open_trajectory(experiment, workdir, seed)) as store:
        check_same(folder, store.restore(step, teacher_shape(experiment)), experiment.teacher)


def test_a_given_trajectory_is_of_one_teacher(experiment, workdir, tmp_path):
    """Of several in the records it is the one whose store is given."""
    copy = shutil.copytree(workdir, tmp_path / "copy", symlinks=True)
    given = workdir / "teacher" / "trajectory-seed5"
    training = dataclasses.replace(experiment.teacher_training, trajectory=str(given))
    write_json(copy / "config.json", plain(dataclasses.replace(experiment, teacher_training=training)))
    folder = export(copy, tmp_path / "out", "teacher")
    with closing(open_trajectory(experiment, workdir, 5)) as store:
        check_same(folder, store.restore(4, teacher_shape(experiment)), experiment.teacher)
    text = (folder / "README.md").read_text()
    assert f"of the checkpoints in `{given}`, after 4 steps; it was not trained here." in text
    assert "| seed | 5 |" in text


STUDENTS = {  # and which of the run's replicas they are: by loss, then rate, then seed
    ("hard-4", 0, 1e-2): ("hard-4", 0),
    ("hard-4", 1, 2e-2): ("hard-4", 3),
    ("soft-4", 0, 1e-2): ("hard-4", 4),
    ("soft-4", 1, 2e-2): ("hard-4", 7),
    ("matched-4", 1, 1e-2): ("matched-4", 1),
    ("labels-4", 0, 2e-2): ("labels-4", 2),
}


@pytest.mark.parametrize("step", [2, None])
@pytest.mark.parametrize("student", STUDENTS)
def test_students(experiment, workdir, tmp_path, student, step):
    name, replica = STUDENTS[student]
    description = read_description(workdir / "students" / name)
    folder = export(workdir, tmp_path / "out", *student, step)
    with closing(open_checkpoints(workdir, description)) as store:
        kept = store.restore(step or 4, students_shape(experiment, len(description.replicas)))
    check_same(folder, jax.tree.map(lambda leaf: leaf[replica], kept), experiment.student)


@pytest.mark.parametrize("student", [("soft-4", 1, 2e-2), ("matched-4", 1, 1e-2)])
def test_students_whose_states_alone_are_there(workdir, tmp_path, student):
    """Training states hold what checkpoints do, and what the loss has trained besides."""
    kept = export(workdir, tmp_path / "kept", *student)
    copy = shutil.copytree(workdir, tmp_path / "copy", symlinks=True)
    for trajectory in copy.glob("students/*/trajectory"):
        shutil.rmtree(trajectory)
    state = export(copy, tmp_path / "state", *student)
    assert (state / "model.safetensors").read_bytes() == (kept / "model.safetensors").read_bytes()
    assert not list(copy.glob("students/*/trajectory"))  # nothing is made there


def test_models_of_other_sizes_and_variants(workdir, tmp_path):
    # One is left, and what it lacks of a name is not asked for.
    size = export(workdir, tmp_path / "size", "heads/two")
    assert read_back(size, 7)[1].architecture.num_heads == 2
    variant = export(workdir / "ablations" / "width" / "wide", tmp_path / "variant", "hard-4", 1, 2e-2)
    assert read_back(variant, 7)[1].architecture.model_width == 8


def refusal(workdir, into, *asked, **by_name):
    with pytest.raises(UserError) as error:
        export(workdir, into, *asked, **by_name)
    assert not into.exists()
    return str(error.value)


BOTH = "(seed 0 or 1, learning_rate 0.01 or 0.02)"
THERE = (
    f"teacher (seed 3 or 5, learning_rate 0.005), hard-4 {BOTH}, soft-4 {BOTH}, labels-4 {BOTH}, matched-4 {BOTH}, "
    "heads/two (seed 0, learning_rate 0.01)"
)
REMEDY = "name run, seed and learning_rate as far as it takes"


def test_several_models_and_none(workdir, tmp_path):
    into = tmp_path / "out"
    assert refusal(workdir, into) == f"expected one model in {workdir}; found 19: {THERE}; {REMEDY}"
    assert refusal(workdir, into, "soft-4", seed=1) == (
        f"expected one model with run soft-4, seed 1 in {workdir}; "
        f"found 2: soft-4 (seed 1, learning_rate 0.01 or 0.02); {REMEDY}"
    )
    assert refusal(workdir, into, "warm-4") == (
        f"expected one model with run warm-4 in {workdir}; found none; there are {THERE}; {REMEDY}"
    )
    assert refusal(workdir, into, "heads/two", step=3) == (
        "expected heads/two after step 3 of 4; found the steps 2, 4; choose one of them, or finish the run"
    )
    assert refusal(tmp_path, into) == (
        f"expected a working directory; found no config.json in {tmp_path}; name another"
    )


def test_nothing_is_overwritten(workdir, tmp_path):
    into = tmp_path / "out"
    into.mkdir()
    (into / "mine").touch()
    with pytest.raises(UserError, match="a new or empty folder"):
        export(workdir, into, "heads/two")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "mine"]
    (into / "mine").unlink()
    assert export(workdir, into, "heads/two") == into
    names = {"README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert {path.name for path in into.iterdir()} == names
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_model_card(workdir, tmp_path):
    folder = export(workdir, tmp_path / "out", "soft-4", 1, 2e-2)
    _, front, text = (folder / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(front)["library_name"] == "transformers"
    assert "license" not in front
    run = read_run(workdir / "students" / "hard-4")
    digest = read_experiment(workdir).digest
    for said in (
        f"loss {run.evaluation.loss[-1, 7]:.4f} nats",
        f"accuracy {run.evaluation.accuracy[-1, 7]:.4f}, a share of the selected positions; measured on 4 held-out",
        "imitate 2 checkpoints, one after another, of a Bert of 1 layer with 2 heads, width 8",
        "the teacher's steps 2 from student step 0; 4 from student step 2 |",
        "`Distillation(temperature=0.5, label_weight=0.0)`",
        "| 4 steps of batches of 2 |",
        "| learning rate | 0.02 |",
        "| seed | 1 |",
        f"jax {jax.__version__}",
        digest,
        "export WORKDIR FOLDER --run=soft-4 --seed=1 --learning_rate=0.02\n",
        "AutoModelForMaskedLM",
        "begin with [BOS]",
        "Logits from 7 on",
    ):
        assert said in text
    earlier = (export(workdir, tmp_path / "earlier", "soft-4", 1, 2e-2, 2) / "README.md").read_text()
    assert f"loss {run.evaluation.loss[-2, 7]:.4f} nats" in earlier
    assert "imitate one checkpoint" in earlier  # of the second it has learned nothing yet
    assert "--learning_rate=0.02 --step=2" in earlier
    labels = (export(workdir, tmp_path / "labels", "labels-4", 1, 2e-2) / "README.md").read_text()
    assert "from the labels alone" in labels
    assert "| teacher |" not in labels


def test_the_tasks_tokens(workdir, tmp_path):
    folder = export(workdir, tmp_path / "out", "heads/two")
    assert tokens_of(folder) == TOKENS


def test_the_teachers_tokenizer_travels_along(workdir, tmp_path):
    copy = shutil.copytree(workdir, tmp_path / "copy", symlinks=True)
    (copy / "teacher" / "tokenizer").mkdir()
    (copy / "teacher" / "tokenizer" / "vocab.txt").write_text("\n".join("abcdefg"))
    folder = export(copy, tmp_path / "out", "heads/two")
    assert tokens_of(folder) == tuple("abcdefg")
    assert not (folder / "tokenizer.json").exists()
    assert "which the tokenizer puts there" not in (folder / "README.md").read_text()


UNLIKE = {
    "invisible": (Bert(1, 1, 4, attend_to_selected=False), "attend_to_selected False"),
    "averaged": (Gpt2(1, 1, 4, 4, heads="average"), "heads that are averaged"),
    "mlp": (Mlp((4,)), "found Mlp"),
}


@pytest.mark.parametrize("what", UNLIKE)
def test_what_hugging_face_lacks(tmp_path, what):
    architecture, found = UNLIKE[what]
    with pytest.raises(UserError, match=found):
        write_model(tmp_path / "out", {}, Described(architecture, 7, 8), "")
    assert not list(tmp_path.iterdir())


def test_a_task_whose_classes_are_no_tokens(experiment, workdir, tmp_path):
    copy = shutil.copytree(workdir, tmp_path / "copy", symlinks=True)
    other = dataclasses.replace(
        experiment, task=HierarchicalTask(), teacher=Gpt2(1, 1, 4), student=Gpt2(1, 1, 4), sizes=None, ablations=()
    )
    other = dataclasses.replace(other, strategies=(Strategy("hard"),))
    write_json(copy / "config.json", plain(other))
    line = refusal(copy, tmp_path / "out", "teacher", 3)
    assert line.startswith("expected a task whose classes are its 2 tokens")


def test_an_unfinished_folder_is_nowhere(tmp_path, monkeypatch):
    """What fails while it is written leaves nothing."""
    described = Described(Bert(1, 1, 4), 7, 8)
    inputs = {name: jnp.zeros((1, 8), kind) for name, kind in (("tokens", int), ("valid", bool), ("selected", bool))}
    params = BertModule(*described).init(jax.random.key(0), inputs)["params"]
    with monkeypatch.context() as patch:
        patch.setattr(exporting, "save_file", raising(OSError("full")))
        with pytest.raises(OSError, match="full"):
            write_model(tmp_path / "out", params, described, "")
    assert not list(tmp_path.iterdir())
    write_model(tmp_path / "out", params, described, "")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"README.md", "config.json", "model.safetensors"}


def raising(error):
    def fail(*_, **__):
        raise error

    return fail
