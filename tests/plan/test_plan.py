"""Plans: bytes against arrays that are really placed, what is counted, and what is said when it does not fit."""

import dataclasses
import importlib.util
import json
import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pdjax.distill.losses import Distillation, HiddenMatching
from pdjax.distill.schedules import FixedDuration
from pdjax.distill.selection import Equal, Levels, Multiples, Phase, Steps, Transition
from pdjax.distill.strategy import Strategy
from pdjax.errors import UserError
from pdjax.experiment import Loop, Probes
from pdjax.io.records import read_run, read_students
from pdjax.io.signals import Interrupt
from pdjax.io.store import disk_of
from pdjax.models.mlp import Mlp
from pdjax.plan.experiment import left_out, most_checkpoints, plan_experiment
from pdjax.plan.hardware import CHIPS, GPUS, Topology, open_topology
from pdjax.plan.hlo import Work, count_work
from pdjax.plan.program import Memory, abstract_arguments, bytes_on_a_device
from pdjax.plan.roofline import roofline
from pdjax.plan.table import as_text
from pdjax.stages.programs import compiled, student_program, student_replicas, teacher_shape
from pdjax.stages.students import open_checkpoints, students_shape, train_students
from pdjax.stages.teacher import open_trajectory, train_teacher
from pdjax.tasks.parity import ParityTask
from pdjax.train.loop import KEPT_STATES
from pdjax.train.sharding import MeshSizes, Placement
from pdjax.types import SELDOM

PAPER = [
    ("pcfg", "paper"),
    ("pcfg_gpt", "paper"),
    ("parity_mlp", "paper"),
    ("parity_transformer", "paper"),
    ("hierarchical", "paper"),
]
aot = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="needs the compilers of the aot extra: pip install -e '.[aot]'"
)


@pytest.fixture(scope="module")
def smoke(experiment):
    """With one size and two runs for the temperatures, as every program is compiled."""
    smoke = experiment("parity_mlp", "smoke")
    *others, temperatures = smoke.comparisons
    assert temperatures.name == "temperatures"
    (panel,) = smoke.sizes.panels
    panel = dataclasses.replace(panel, models=panel.models[:1])
    return dataclasses.replace(
        smoke,
        strategies=tuple(s for s in smoke.strategies if s.name not in temperatures.strategies[1:]),
        comparisons=tuple(others),
        sizes=dataclasses.replace(smoke.sizes, panels=(panel,)),
    )


@pytest.fixture(scope="module")
def measured(smoke):
    """The plan of this machine."""
    return plan_experiment(smoke, None)


def taught_program(experiment):
    """Returns the training of students by distillation."""
    return student_program(experiment, student_replicas(experiment, [Distillation()]))


@pytest.mark.parametrize(("mesh", "split"), [((2, 1, 4), "sharded"), ((2, 1, 4), "replicated"), ((2, 1, 1), "sharded")])
def test_bytes_on_a_device_are_those_of_placed_arrays(smoke, mesh, split):
    placed = dataclasses.replace(smoke, placement=Placement(MeshSizes(*mesh), split, split, "stacked"))
    training, devices = taught_program(placed), jax.devices()[: np.prod(mesh)]
    sweep = compiled(placed, training, devices)
    state, _, teacher, *_ = abstract_arguments(training, sweep, held=3)
    real = sweep.init(jax.device_put(np.arange(2, dtype=np.int32), state.step.sharding))
    shards = [leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(real)]
    assert bytes_on_a_device(state) == sum(shards)
    nbytes = 3 * sum(leaf.size * 4 for leaf in jax.tree.leaves(teacher.checkpoints)) // 3
    parts = mesh[2] if split == "sharded" else 1
    assert bytes_on_a_device(teacher.checkpoints) == pytest.approx(nbytes / parts, rel=0.05)  # small biases stay whole


def test_given_checkpoints_are_counted_and_found_ones_added(smoke):
    """8 equally spaced ones, the final one among them, and one each for start, middle and end."""
    assert most_checkpoints(smoke) == 8 + 3


@pytest.mark.parametrize(
    ("selections", "expected"),
    [
        ((), 0),
        ((Multiples(2048),), 4),  # 2048, 4096, 6144 and the final 8192
        ((Multiples(2048, count=3),), 3),
        ((Multiples(count=3),), 3),
        ((Multiples(),), 16),  # all that are stored, should the first be the phase's
        ((Multiples(count=3), Phase()), 3),  # one first
        ((Multiples(count=3), Multiples(2048)), 6),
        ((Transition(("start", "end")), Transition(("end",))), 3),
        ((Levels(), Levels((0,))), 2),
        ((Steps((512, 1024)), Phase()), 4),
    ],
)
def test_checkpoints_of_several_selections_are_counted_once(smoke, selections, expected):
    chosen = tuple(
        Strategy(f"s{number}", schedule=FixedDuration(500), selection=selection)
        for number, selection in enumerate(selections)
    )
    changed = dataclasses.replace(smoke, strategies=chosen or (smoke.strategy("labels"),), comparisons=())
    assert most_checkpoints(changed) == expected


def test_a_plan_of_this_machine_measures_its_steps(smoke, measured):
    plan = measured
    names = ["teacher", "students with a teacher x 2", "students with a teacher x 4", "students of labels x 2"]
    assert [p.name for p in plan.programs][:4] == names
    assert all(p.bound == "measured" and p.seconds > 0 for p in plan.programs)
    assert plan.fits
    assert plan.assumed is None
    taught = plan.programs[1]
    assert taught.teacher_products == 2 * 2 * (10 * 100 + 100 * 2)  # two replicas, each with an example of its own
    assert plan.programs[2].teacher_products == 2 * taught.teacher_products
    assert plan.programs[3].teacher_products == 0
    assert "stacked (11 checkpoints" in plan.residency
    text = as_text(plan)
    assert "A step's time was measured" in text
    for stage in plan.stages:
        assert stage.name in text
    assert "the teacher's training decides about those of start, middle, end, and strategies" in text


def test_a_block_of_steps_reads_its_teacher_once(measured):
    """Where a curriculum moves on within a block every step reads one of its own, which is seldom."""
    taught, labels = measured.programs[1], measured.programs[3]
    teacher = 4 * (10 * 100 + 100 + 100 * 2 + 2)
    assert 0 < taught.work.traffic - labels.work.traffic < teacher / 2


def test_runs_of_a_plan_are_those_of_its_programs(smoke, measured):
    """One-shot at two temperatures is one run of twice the students."""
    budget = smoke.student_training.budgets[0]
    _, two, four, labels, size = measured.stages
    runs = ["progressive", "adaptive", "timer", "start", "middle", "end"]
    assert [run.strategies for run in two.runs] == [(name,) for name in runs]
    assert [run.strategies for run in four.runs] == [("one_shot", "one_shot_soft")]
    assert [run.strategies for run in labels.runs] == [("labels",)]
    assert [stage.replicas for stage in measured.stages] == [2, 2, 4, 2, 2]
    assert [stage.steps for stage in (two, four, labels)] == [6 * budget, budget, budget]
    assert len(size.runs) == 1


@pytest.fixture(scope="module")
def trained(experiment, tmp_path_factory):
    """A minimal experiment that is given all its checkpoints, what it leaves, and its plan."""
    smoke = experiment("parity_mlp", "smoke")
    pace, equal = FixedDuration(15), Equal(4)
    adaptive = dataclasses.replace(smoke.strategy("adaptive").schedule, max_steps=200)
    small = dataclasses.replace(
        smoke,
        task=ParityTask(6, 2),
        teacher=Mlp((12,)),
        # Batches of 2: no blocks, which are slow to compile.
        teacher_training=dataclasses.replace(smoke.teacher_training, batch_size=2, steps=80, checkpoint_every=20),
        student_training=dataclasses.replace(
            smoke.student_training, batch_size=2, budgets=(40, 80), checkpoint_every=20
        ),
        strategies=(
            smoke.strategy("labels"),
            smoke.strategy("one_shot"),
            smoke.strategy("one_shot_soft"),
            Strategy("progressive", schedule=pace, selection=equal),
            Strategy("temperature_1", Distillation(1.0), pace, equal),
            Strategy("middle", schedule=pace, selection=Multiples(20), budgets=(80,)),  # the same as equally spaced
            Strategy("adaptive", schedule=adaptive, selection=equal),
        ),
        comparisons=(),
        probes=Probes(),
        sizes=None,
        evaluation=dataclasses.replace(smoke.evaluation, every=20),
        loop=Loop(10, save_every=40),
    )
    workdir = tmp_path_factory.mktemp("trained")
    train_teacher(small, workdir, Interrupt())
    train_students(small, workdir, Interrupt())
    return small, workdir, plan_experiment(small, None)


def test_a_plan_counts_the_runs_that_an_experiment_leaves(trained):
    _, workdir, plan = trained
    stages = plan.stages
    left = [record.description for record in (read_run(workdir / "teacher"), *read_students(workdir))]
    real = {(run.strategies, run.budget): len(run.replicas) for run in left}
    assert {(run.strategies, run.budget): stage.replicas for stage in stages for run in stage.runs} == real
    assert real[("middle", "progressive", "temperature_1"), 80] == 4
    assert sum(len(stage.runs) for stage in stages) == len(left) == 1 + 2 * 4


def test_a_given_teacher_is_not_trained(trained):
    small, workdir, plan = trained
    given = dataclasses.replace(small.teacher_training, trajectory=str(workdir / "teacher" / "trajectory"))
    without = plan_experiment(dataclasses.replace(small, teacher_training=given), None)
    assert [program.name for program in without.programs] == [program.name for program in plan.programs[1:]]
    assert [stage.runs for stage in without.stages] == [stage.runs for stage in plan.stages[1:]]
    assert without.residency == plan.residency


def test_the_disk_of_a_plan_holds_the_kept_checkpoints_of_teachers_and_students(trained):
    """Beside the training states: all arrays that are there, with what their files take besides."""
    small, workdir, plan = trained
    kept = {"teacher": np.zeros(2, int), "students": np.zeros(2, int)}
    for seed in (0, 1):
        kept["teacher"] += bytes_in(open_trajectory(small, workdir, seed), teacher_shape(small))
    for run in (record.description for record in read_students(workdir)):
        kept["students"] += bytes_in(open_checkpoints(workdir, run), students_shape(small, len(run.replicas)))
    for part, nbytes in kept.items():
        stages = [stage for stage in plan.stages if stage.name.startswith(part)]
        programs = {program.name: program for program in plan.programs}
        states = [(KEPT_STATES * len(stage.runs), programs[stage.name]) for stage in stages]
        of_states = sum(disk_of(count * program.saved, program.arrays, count) for count, program in states)
        arrays, count = nbytes
        expected = of_states + disk_of(arrays, len(jax.tree.leaves(teacher_shape(small))), count)
        assert sum(stage.disk for stage in stages) == pytest.approx(expected, rel=1e-3)
        assert count > 0


def test_programs_that_differ_in_a_layer_alone_are_all_counted(trained):
    """As many programs as there are layers: the learned projections have shapes of their own."""
    small, _, _ = trained
    layered = dataclasses.replace(
        small,
        teacher=Mlp((12, 10, 8)),
        strategies=tuple(
            Strategy(f"layer_{layer}", HiddenMatching(teacher_layer=layer), budgets=(40,)) for layer in range(3)
        ),
    )
    plan = plan_experiment(layered, _Pretended(CHIPS["h100"]))
    _, *students = plan.stages
    assert [[run.strategies for run in stage.runs] for stage in students] == [[(f"layer_{n}",)] for n in range(3)]
    name = "students with a teacher x 2"
    assert [stage.name for stage in students] == [name, f"{name} (HiddenMatching)", f"{name} (HiddenMatching, 2)"]
    assert [program.name for program in plan.programs] == ["teacher", *(stage.name for stage in students)]


def bytes_in(store, like):
    """Returns the bytes of all arrays in a store, and how many checkpoints it has."""
    steps = store.steps()
    nbytes = sum(leaf.nbytes for step in steps for leaf in jax.tree.leaves(store.restore(step, like)))
    store.close()
    return nbytes, len(steps)


@pytest.mark.parametrize(
    ("name", "variant", "expected"),
    [
        ("pcfg", "smoke", ("probes (ngrams, nonterminals, agreement)",)),  # which say of which students, too
        ("parity_mlp", "smoke", ("probes (monomials)",)),
        (
            "pcfg",
            "ablations",
            (
                "probes (ngrams, nonterminals, agreement)",
                "ablations (mask_rate/15%, mask_rate/50%, student/4 heads, grammar/cfg3h, grammar/cfg3i)",
            ),
        ),
    ],
)
def test_what_is_left_out_is_probes_and_ablations(experiment, name, variant, expected):
    assert left_out(experiment(name, variant)) == expected


def test_what_does_not_fit_is_said_with_what_to_change(smoke):
    small = dataclasses.replace(CHIPS["h100"], memory=10_000)
    plan = plan_experiment(smoke, _Pretended(small))
    assert not plan.fits
    assert "streamed (11 checkpoints" in plan.residency
    text = as_text(plan)
    assert "40% of compute, 70% of memory, 70% of links, and at least 3 µs a kernel" in text
    assert "TEACHER DOES NOT FIT: mostly its" in text
    assert re.search(r"STUDENTS WITH A TEACHER X 4 DOES NOT FIT: mostly its \w+. To change it, \w+", text)


def test_what_does_not_fit_this_machine_is_not_tried(smoke, monkeypatch):
    monkeypatch.setattr("pdjax.plan.program.memory_of", lambda device: 10_000)
    plan = plan_experiment(smoke, None)
    assert not plan.fits
    assert all(np.isnan(program.seconds) and program.bound == "" for program in plan.programs)
    assert "TEACHER DOES NOT FIT" in as_text(plan)
    assert "nan" not in as_text(plan)


def test_what_a_compiler_refuses_does_not_fit_in_its_words(trained, monkeypatch):
    small, _, _ = trained

    def refuse(lowered, *_):
        raise jax.errors.JaxRuntimeError(words)

    monkeypatch.setattr(jax.stages.Lowered, "compile", refuse)
    words = "RESOURCE_EXHAUSTED: 20 GB of 17 GB\nAllocations: ..."
    plan = plan_experiment(small, _Pretended(CHIPS["h100"]))
    assert not plan.fits
    assert {program.refusal for program in plan.programs} == {"RESOURCE_EXHAUSTED: 20 GB of 17 GB"}
    assert all(program.memory.peak is None and np.isnan(program.seconds) for program in plan.programs)
    words = "INTERNAL: a mistake of the compiler"
    with pytest.raises(jax.errors.JaxRuntimeError, match="a mistake"):
        plan_experiment(small, _Pretended(CHIPS["h100"]))


def test_advice_is_about_what_takes_the_memory(measured):
    parts = {
        "state": "split the model",
        "teachers": "stream the checkpoints",
        "temporaries": "take the batch in pieces",
    }
    for part, advice in parts.items():
        memory = dataclasses.replace(Memory(1, 1, 1, 10, 5), **{part: 8})
        program = dataclasses.replace(measured.programs[0], memory=memory)
        assert f"mostly its {part}. To change it, {advice}" in as_text(
            dataclasses.replace(measured, programs=(program,))
        )
    refused = dataclasses.replace(
        program, memory=Memory(1, 1, None, None, 5), refusal="OUT OF IT", seconds=float("nan")
    )
    text = as_text(dataclasses.replace(measured, programs=(refused,)))
    assert "mostly its temporaries (OUT OF IT). To change it, take the batch in pieces" in text
    assert "nan" not in text
    assert text.count("?") >= 7  # what nobody can know of a program that was not compiled


class _Pretended(Topology):
    """This machine's devices as if they were of another chip."""

    def __init__(self, chip):
        super().__init__("pretended", "h100", jax.devices())
        object.__setattr__(self, "_chip", chip)

    @property
    def chip(self):
        return self._chip


def test_a_step_is_as_slow_as_its_slowest_part():
    chip = CHIPS["v5e"]
    assert roofline([("bfloat16", 197e12 * 0.4)], Work(), chip) == pytest.approx((1.0, "compute"))
    assert roofline([], Work(traffic=8.19e11 * 0.7), chip) == pytest.approx((1.0, "memory"))
    assert roofline([], Work(0, 1, 2e11 * 0.7), chip) == pytest.approx((1.0, "links"))
    assert roofline([], Work(1e6), chip) == pytest.approx((1.0, "kernels"))


@pytest.mark.parametrize("name", ["v5e", "v9:2x2", "h100", "rtx9000x1", "v5e:axb"])
def test_unknown_topologies_say_what_there_is(name):
    with pytest.raises(UserError, match=r"like v5e:2x4 .* or h100x8"):
        open_topology(name)


@pytest.mark.parametrize(("name", "variant"), PAPER)
def test_chunks_of_the_papers_size_lower_for_every_platform(experiment, name, variant):
    """Only lowered, for one device: nothing of this size is compiled or run."""
    paper = experiment(name, variant)
    training = taught_program(paper)  # in which the teacher runs as well
    sweep = compiled(paper, training, jax.devices()[:1])
    arguments = abstract_arguments(training, sweep, held=2)
    exported = jax.export.export(sweep.chunk, platforms=("cpu", "cuda", "tpu"))(*arguments)
    assert exported.platforms == ("cpu", "cuda", "tpu")


@pytest.mark.aot
@aot
@pytest.mark.parametrize("topology", ["v5e:2x2", "h100x8"])
def test_programs_compile_for_hardware_that_is_not_there(root, topology):
    """In a process of its own: the compilers take over some of their process's state."""
    command = [sys.executable, "-m", "pdjax.plan", "--config=tests/minimal.py:few", f"--topology={topology}"]
    result = subprocess.run([*command, "--format=json"], cwd=root, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    plan = json.loads(result.stdout)
    assert plan["fits"]
    memory = {p["name"]: p["memory"] for p in plan["programs"]}
    assert memory["teacher"]["limit"] == CHIPS[topology.split(":")[0].split("x")[0]].memory
    assert all(p["bound"] in ("compute", "memory", "links", "kernels") for p in plan["programs"])


@pytest.mark.aot
@aot
@pytest.mark.parametrize("topology", ["v5e:1x1", "h100x1"])
def test_compilers_leave_a_condition_the_name_by_which_its_cheaper_branch_counts(topology):
    where = jax.sharding.SingleDeviceSharding(open_topology(topology).devices[0])

    def loop(x, often):
        def step(x, _):
            with jax.named_scope(SELDOM):
                return jax.lax.cond(often, lambda: x + 1.0, lambda: jax.lax.map(lambda row: row @ jnp.sin(x), x)), None

        return jax.lax.scan(step, x, length=3)[0]

    shapes = [jax.ShapeDtypeStruct(s, t, sharding=where) for s, t in (((64, 64), jnp.float32), ((), jnp.bool_))]
    text = jax.jit(loop).lower(*shapes).compile().as_text()
    without = count_work(text.replace(SELDOM, "unnamed"))
    assert without.kernels - count_work(text).kernels >= 3 * 64


@pytest.mark.aot
@aot
def test_compilers_for_gpus_need_neither_a_gpu_nor_to_be_told_so():
    code = "from pdjax.plan.hardware import open_topology; print(len(open_topology('h100x2').devices))"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    found = subprocess.run([sys.executable, "-c", code], env=clean, capture_output=True, text=True, check=False)
    assert found.stdout == "2\n", found.stderr


def test_every_gpu_has_a_chip():
    assert set(GPUS) <= set(CHIPS)
