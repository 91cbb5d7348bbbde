"""Experiments: what is refused, and in which words; variants, budgets, and what their digest depends on."""

import dataclasses
import json
import re
from typing import ClassVar

import pytest

from pdjax.distill.adaptive import UntilRobust, UntilSaturated
from pdjax.distill.losses import Distillation, HiddenMatching, Labels, Ramp
from pdjax.distill.part import LowDegree, WithoutLowDegree
from pdjax.distill.schedules import EqualSplit, FixedDuration, TeacherSplit
from pdjax.distill.selection import Auto, Equal, Final, Levels, Multiples, RobustPeak, Steps, Transition
from pdjax.distill.strategy import Strategy
from pdjax.errors import UserError
from pdjax.experiment import (
    Ablation,
    Comparison,
    Experiment,
    Loop,
    Probes,
    SizedModel,
    SizePanel,
    Sizes,
    StudentTraining,
    TeacherTraining,
    Variant,
)
from pdjax.models.bert import Bert
from pdjax.models.gpt2 import Gpt2
from pdjax.models.mlp import Mlp
from pdjax.probes.agreement import AgreementProbe
from pdjax.probes.attention import AttentionProbe
from pdjax.probes.base import Probe
from pdjax.probes.monomials import MonomialProbe
from pdjax.probes.ngrams import NgramProbe
from pdjax.probes.nonterminals import NonterminalProbe
from pdjax.settings import make, plain, settings
from pdjax.tasks.parity import HierarchicalTask, ParityTask
from pdjax.tasks.pcfg import PcfgLanguageTask, PcfgTask
from pdjax.train.keeping import AtSteps, Geometric
from pdjax.train.sharding import MeshSizes, Placement
from pdjax.train.step import Evaluation


@settings
class Measured(Probe):
    """A user's probe whose records would lie in the stage's own file."""

    name: ClassVar[str] = "measured"

    def prepare(self, subject):
        return lambda params: {}


BERT = Bert(num_layers=2, num_heads=4, head_dim=8)
GPT2 = Gpt2(num_layers=2, num_heads=2, head_dim=8)
NGRAMS = NgramProbe((2, 3), num_sentences=8, num_positions=2, percentiles=(50, 75), batch_size=4)

STRINGS = Experiment(
    name="small",
    task=PcfgTask("cfg3b", root=16),
    teacher=BERT,
    student=Bert(num_layers=2, num_heads=2, head_dim=None, width=16),
    strategies=(
        Strategy("labels", Labels()),
        Strategy("one_shot"),
        Strategy("fixed", schedule=FixedDuration(50), selection=Steps((100, 300))),
        Strategy("equal", schedule=EqualSplit(), selection=Equal(4)),
        Strategy("teacher", schedule=TeacherSplit(0.5), selection=Multiples(count=3)),
    ),
    teacher_training=TeacherTraining(seed=1, steps=800, batch_size=32, checkpoint_every=100),
    student_training=StudentTraining(learning_rates=(1e-2, 5e-3), budgets=(200, 400), checkpoint_every=100),
    sizes=Sizes((SizePanel("heads", (SizedModel("4", BERT),)),), seeds=(0, 1), steps=400),
    probes=Probes(
        (NGRAMS, NonterminalProbe(2, num_train=8, num_test=8, batch_size=4), AgreementProbe(1, 8)), ("one_shot",)
    ),
    ablations=(
        Ablation(
            "mask_rate",
            "Mask rate",
            (Variant("15%", {"task": {"mask_rate": 0.15}}), Variant("wide", {"student": {"width": 32}})),
            ("one_shot", "equal"),
            (200,),
            base="30%",
        ),
    ),
    evaluation=Evaluation(100, num_batches=2, batch_size=64),
    comparisons=(Comparison("all", "All", ("one_shot", "fixed"), "figure 1"),),
    loop=Loop(20, save_every=100),
    remarks={"R4": "shows at another size"},
)
PARITY = dataclasses.replace(
    STRINGS,
    task=ParityTask(10, 3),
    teacher=GPT2,
    student=Mlp((20,)),
    probes=Probes((MonomialProbe(3, 100, 4096, 1024), AttentionProbe(64))),
    ablations=(),
    sizes=None,
)
HIERARCHY = dataclasses.replace(PARITY, task=HierarchicalTask(21, 3, 3))  # 7 features of 3 coordinates
LANGUAGE = dataclasses.replace(
    STRINGS, task=PcfgLanguageTask("cfg3f", 18, level=3), teacher=GPT2, student=GPT2, ablations=(), sizes=None
)


def changed(base, **changes):
    """Returns an experiment with some values of its plain data replaced, paths written with __ between names."""
    data = json.loads(json.dumps(plain(base)))
    for path, value in changes.items():
        *parents, last = path.split("__")
        parent = data
        for name in parents:
            named = {part["name"]: part for part in parent if "name" in part} if isinstance(parent, list) else parent
            parent = named[name]
        parent[last] = plain(value)
    return make(Experiment, data, "config")


# A row: the experiment, the change, then what the message has to say in this order: place, expected, found, remedy.
WRONG = [
    # Values.
    (STRINGS, {"seed": "0"}, r"^expected config\.seed of type int; found '0' \(str\); change it$"),
    (STRINGS, {"name": 3}, r"^expected config\.name of type string; found 3 \(int\)"),
    (STRINGS, {"task__root": "16"}, r"^in config\.task: expected root of type int; found '16' \(str\)"),
    (STRINGS, {"task__mask_rate": 0.0}, r"^in config\.task: expected mask_rate of more than 0.*; found 0\.0"),
    (STRINGS, {"task__mask_rate": 1.0}, r"^in config\.task: expected mask_rate of less than 1.*; found 1\.0"),
    (STRINGS, {"task": None}, r"^in config\.task: expected an instance of Task, or a mapping .*; found None"),
    (STRINGS, {"task__class": "pdjax.tasks:Cfg"}, r"^in config\.task: expected a subclass of Task; found .*:Cfg'"),
    (STRINGS, {"task__class": "pdjax.tasks:ParityTask"}, r"^in config\.task: expected no field grammar; found 'cfg3b'"),
    (STRINGS, {"teacher__num_layers": 0}, r"^in config\.teacher: expected num_layers of at least 1; found 0"),
    (STRINGS, {"teacher__dropout": 1.0}, r"^in config\.teacher: expected dropout of less than 1.*; found 1\.0"),
    (STRINGS, {"student_training__seeds": ()}, r"student_training: expected at least 1 in seeds; found \(\)"),
    (STRINGS, {"student_training__seeds": ()}, r"expected at least 1 in seeds; found \(\); add one"),
    (STRINGS, {"loop__writers": ("csv",)}, r"loop: expected writers\.0 among 'tensorboard' or 'wandb'; found 'csv'"),
    (STRINGS, {"teacher_training__learning_rate": float("nan")}, r"learning_rate .*; found nan"),
    (STRINGS, {"strategies__one_shot__loss__temperature": -1.0}, r"temperature of at least 0; found \(-1\.0,\)"),
    (STRINGS, {"strategies__one_shot__loss__temperature": float("nan")}, r"a finite number, or a Ramp; found nan"),
    (STRINGS, {"strategies__one_shot__loss__label_weight": 1.5}, r"label_weight from 0 to 1; found \(1\.5,\)"),
    (STRINGS, {"strategies__one_shot__loss__label_weight": 1.0}, r"label_weight below 1; found 1; the loss Labels"),
    (STRINGS, {"strategies__one_shot__name": "one shot"}, r"letters, digits and underscores; found 'one shot'"),
    (STRINGS, {"strategies__one_shot__name": "fixed"}, r"distinct strategies; found .*; remove the repeated ones"),
    (
        STRINGS,
        {"sizes__panels": (SizePanel("heads", (SizedModel("4", BERT),)),) * 2},
        r"sizes: expected distinct panels; found \('heads', 'heads'\); remove",
    ),
    (
        STRINGS,
        {"sizes__panels": ({"name": "heads", "models": [{"name": "4", "model": plain(BERT)}] * 2},)},
        r"expected distinct models; found \('4', '4'\); remove",
    ),
    # Contradictions within a part.
    (STRINGS, {"student__width": 17}, r"student: expected a width that 2 heads divide; found width 17; change width"),
    (STRINGS, {"teacher__width": 64}, r"teacher: expected width = num_heads \* head_dim = 4 \* 8 = 32; found width 64"),
    (STRINGS, {"teacher__head_dim": None}, r"teacher: expected head_dim or width; found neither"),
    (STRINGS, {"teacher_training__checkpoint_every": 300}, r"checkpoint_every that divides steps = 800; found 300"),
    (
        STRINGS,
        {"teacher_training__keep": AtSteps((150,))},
        r"keep: .*multiples of checkpoint_every = 100.*; found \[150\]",
    ),
    (STRINGS, {"student_training__seeds": (1, 1)}, r"student_training: expected distinct seeds; found \(1, 1\)"),
    (STRINGS, {"student_training__budgets": (200, 200)}, r"expected distinct budgets; found \(200, 200\)"),
    (STRINGS, {"strategies__fixed__selection__steps": (300, 100)}, r"increasing order.*; found \(300, 100\); sort"),
    (STRINGS, {"strategies__equal__selection__count": 0}, r"count of at least 1; found 0"),
    (STRINGS, {"strategies__fixed__schedule__duration": 0}, r"duration of at least 1; found 0"),
    (STRINGS, {"strategies__fixed__budgets": ()}, r"at least 1 in .*budgets.*; found \(\)"),
    (PARITY, {"task__degree": 11}, r"task: expected .*degree .*10.*; found 11"),
    (HIERARCHY, {"task__dimension": 20}, r"task: expected .*dimension of at least 21, 7 features .*; found 20"),
    (PARITY, {"student__widths": ()}, r"student: expected at least 1 in widths; found \(\)"),
    (PARITY, {"teacher__heads": "average"}, r"teacher: expected head_dim and width with averaged heads; found .*None"),
    (PARITY, {"teacher_training__extra_seeds": (1, 2)}, r"distinct extra_seeds, other than seed; found \(1, 1, 2\)"),
    (LANGUAGE, {"task__level": 0}, r"task: expected level of at least 1; found 0"),
    # Lengths that the chunks of 20 steps do not divide.
    (STRINGS, {"loop__save_every": 30}, r"in config: expected loop\.save_every to be a multiple of .* = 20; found 30"),
    (STRINGS, {"evaluation__every": 50}, r"expected evaluation\.every to be a multiple of .* = 20; found 50"),
    (STRINGS, {"teacher_training__checkpoint_every": 50}, r"teacher_training\.checkpoint_every .* = 20; found 50"),
    (STRINGS, {"student_training__budgets": (200, 410)}, r"student_training\.budgets\[1\] .* = 20; found 410"),
    (STRINGS, {"student_training__checkpoint_every": 50}, r"student_training\.checkpoint_every .* = 20; found 50"),
    (STRINGS, {"student_training__checkpoint_every": 80}, r"checkpoint_every that divides the budget 200.*; found 80"),
    (STRINGS, {"strategies__fixed__budgets": (310,)}, r"strategies\.fixed\.budgets .* = 20; found 310"),
    # Models, tasks, probes and strategies that are not for each other.
    (
        PARITY,
        {"student": BERT},
        r"in student: expected a model for the inputs .* of ParityTask; found Bert, which reads",
    ),
    (STRINGS, {"student": Mlp((20,))}, r"in student: expected a model for .*; found Mlp"),
    (STRINGS, {"student": GPT2}, r"in student: expected a model that sees both sides .*; found Gpt2"),
    (LANGUAGE, {"student": BERT}, r"in student: expected a model for .* of PcfgLanguageTask; found Bert"),
    (
        STRINGS,
        {"sizes__panels": (SizePanel("heads", (SizedModel("2", GPT2),)),)},
        r"in heads/2: expected a model that sees both sides .*; found Gpt2",
    ),
    (HIERARCHY, {"teacher__tied_head": True}, r"tied_head only where the classes are as many .*2; found the 8 classes"),
    (
        STRINGS,
        {"strategies__fixed__selection": Transition(("start",))},
        r"a task of one class per input.*; found PcfgT",
    ),
    (HIERARCHY, {"strategies__fixed__selection": Levels((0, 3))}, r"levels from 0 to 2; found \[3\]; the root is"),
    (
        STRINGS,
        {"strategies__fixed__selection": Auto(), "probes__measured": ()},
        r"probes\.ngrams for strategies\.fixed with the selection Auto; found None",
    ),
    (
        PARITY,
        {"strategies__fixed__selection": Levels(), "probes__measured": ()},
        r"probes\.monomials for strategies\.fixed with the selection Levels; found None",
    ),
    (PARITY, {"strategies__fixed__schedule": UntilRobust()}, r"strategies\.fixed: expected .*; found ParityTask"),
    (
        PARITY,
        {"strategies__fixed__schedule": UntilSaturated(window=5, max_steps=500)},
        r"in strategies\.fixed: expected max_steps above window \* evaluation\.every = 500 steps; found 500",
    ),
    (
        PARITY,
        {"strategies__fixed__schedule": UntilSaturated(), "placement__residency": "streamed"},
        r"residency 'auto' or 'stacked' for the adaptive strategies\.fixed; found streamed",
    ),
    (STRINGS, {"strategies__fixed__part": LowDegree()}, r"in strategies\.fixed\.part: .* levels, .*; found PcfgTask"),
    (HIERARCHY, {"strategies__fixed__part": LowDegree()}, r"fixed\.part: expected a task of 2 classes; found Hierarch"),
    (PARITY, {"strategies__fixed__part": WithoutLowDegree(4)}, r"fixed\.part: expected a degree up to 3; found 4"),
    (
        PARITY,
        {"strategies__fixed__part": LowDegree(1, "elsewhere"), "task__degree": 6},
        r"fixed\.part: expected 6 coordinates outside of the support .*; found 4",
    ),
    (
        PARITY,
        {"strategies__one_shot__part": LowDegree()},
        r"an intermediate checkpoint for strategies\.one_shot\.part; found OneShot of Final",
    ),
    (
        PARITY,
        {"strategies__fixed__part": LowDegree(), "strategies__fixed__selection": Final()},
        r"an intermediate checkpoint for strategies\.fixed\.part; found FixedDuration of Final",
    ),
    (
        PARITY,
        {"strategies__fixed__part": LowDegree(), "strategies__fixed__schedule": UntilSaturated()},
        r"a schedule for strategies\.fixed\.part that is no adaptive one; found UntilSaturated",
    ),
    (
        PARITY,
        {"strategies__fixed__part": LowDegree(), "strategies__fixed__loss": HiddenMatching()},
        r"a loss for strategies\.fixed\.part that looks at logits alone; found HiddenMatching",
    ),
    *(
        (
            PARITY,
            {"strategies__fixed__part": WithoutLowDegree(), "placement__residency": residency}
            | {f"strategies__{name}__loss": Distillation(0.0) for name in ("one_shot", "fixed")},
            rf"residency 'auto' or 'stacked' for strategies\.fixed\.part; found {residency}",
        )
        for residency in ("streamed", "cached")
    ),
    (
        STRINGS,
        {"placement__micro_batches": 3},
        r"a student_training\.batch_size that placement\.micro_batches 3 divides; found \d+; change one of the two",
    ),
    (
        PARITY,
        {"strategies__fixed__loss": HiddenMatching(), "placement__micro_batches": 2},
        r"a loss of strategies\.fixed that takes each example by itself .*; found HiddenMatching",
    ),
    (
        STRINGS,
        {"teacher_training__keep": Geometric()},
        r"teacher_training\.keep Regular for strategies\.teacher, which takes multiples .*; found Geometric",
    ),
    (STRINGS, {"probes__students": ("one_shot", "best")}, r"probes\.students among \[.*\]; found \['best'\]"),
    (STRINGS, {"student_training__checkpoint_every": None}, r"checkpoint_every with probes\.students; found None"),
    (
        STRINGS,
        {"probes__measured": (NGRAMS, NGRAMS)},
        r"probes: expected distinct probes; found \('ngrams', 'ngrams'\)",
    ),
    (STRINGS, {"probes__measured": (Measured(),)}, r"names of probes other than 'measured'; found \('measured',\)"),
    (PARITY, {"probes__measured": (NGRAMS,)}, r"in probes\.ngrams: expected .*; found ParityTask"),
    (STRINGS, {"probes__measured": (MonomialProbe(),)}, r"in probes\.monomials: expected .*; found PcfgTask"),
    (LANGUAGE, {"probes__measured": (AttentionProbe(64),)}, r"in probes\.attention: .*; found PcfgLanguageTask"),
    (PARITY, {"teacher__num_layers": 1}, r"a teacher of 2 layers for probes\.attention; found Gpt2 with 1 layers"),
    # Figures and variants.
    (
        PARITY,
        {"comparisons__all__strategies": ("best",)},
        r"comparisons\.all\.strategies among \[.*\]; found \['best'\]",
    ),
    (PARITY, {"comparisons__all__strategies": ()}, r"at least 1 in .*strategies.*; found \(\)"),
    (STRINGS, {"ablations__mask_rate__strategies": ("best",)}, r"ablations\.mask_rate\.strategies .*found \['best'\]"),
    (STRINGS, {"ablations__mask_rate__variants": ()}, r"at least 1 in .*variants; found \(\)"),
    (STRINGS, {"ablations__mask_rate__base": "15%"}, r"distinct variants, and base; found \('15%', 'wide', '15%'\)"),
    (STRINGS, {"ablations__mask_rate__budgets": (210,)}, r"in ablations\.mask_rate\.15%: .* = 20; found 210"),
    (STRINGS, {"ablations__mask_rate__variants__wide__name": "a/b"}, r"a name of files: .*; found 'a/b'"),
    (
        STRINGS,
        {"ablations__mask_rate__variants__15%__changes": {"task": {"mask_rat": 0.2}}},
        r"in ablations\.mask_rate\.15%: in task: expected no field mask_rat; found 0\.2; remove or rename it",
    ),
    (
        STRINGS,
        {"ablations__mask_rate__variants__wide__changes": {"student": {"width": 33}}},
        r"in ablations\.mask_rate\.wide: in student: expected a width that 2 heads divide; found width 33",
    ),
    (STRINGS, {"sizes__panels": ()}, r"sizes: expected at least 1 in panels; found \(\)"),
    (STRINGS, {"sizes__panels__heads__name": "a/b"}, r"a name of files: .*; found 'a/b'; rename it"),
]


@pytest.mark.parametrize(("base", "changes", "message"), WRONG)
def test_what_is_refused(base, changes, message):
    with pytest.raises(UserError) as caught:
        changed(base, **changes)
    assert re.search(message, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)


# Values that are right, though others like them are not.
RIGHT = [
    (STRINGS, {"strategies__one_shot__loss": Distillation(0.0, 0.5)}),
    (STRINGS, {"strategies__one_shot__loss": Distillation(Ramp(1.0, 0.0), Ramp(1.0, 0.0))}),
    (STRINGS, {"strategies__fixed__selection": RobustPeak()}),
    (STRINGS, {"strategies__fixed__schedule": UntilRobust(NGRAMS)}),
    (PARITY, {"strategies__fixed__selection": Transition(("start", "end"))}),
    (PARITY, {"strategies__fixed__schedule": UntilSaturated(window=4, max_steps=401)}),
    (PARITY, {"strategies__fixed__part": WithoutLowDegree(3)}),
    (PARITY, {"strategies__fixed__part": LowDegree(1, "elsewhere"), "task__degree": 5}),
    (PARITY, {"teacher_training__extra_seeds": (2,), "teacher_training__trajectory": "there"}),
    (PARITY, {"teacher": Gpt2(num_layers=2, num_heads=2, head_dim=8, width=16, heads="average")}),
    (PARITY, {"task__support": "random", "task__support_seed": 1}),
    (HIERARCHY, {"strategies__fixed__selection": Levels((0, 2))}),
    (LANGUAGE, {"task__level": 1}),
]


@pytest.mark.parametrize(("base", "changes"), RIGHT)
def test_what_is_right_is_another_experiment_and_comes_back_the_same(base, changes):
    experiment = changed(base, **changes)
    assert make(Experiment, json.loads(json.dumps(plain(experiment)))) == experiment
    assert experiment.digest != base.digest


def test_a_strategy_may_have_budgets_of_its_own():
    experiment = changed(STRINGS, strategies__fixed__budgets=(300, 200))
    assert experiment.budgets == (200, 300, 400)
    asked = {
        name: [budget for budget in experiment.budgets if experiment.asks(experiment.strategy(name), budget)]
        for name in ("labels", "fixed")
    }
    assert asked == {"labels": [200, 400], "fixed": [200, 300]}


def test_a_variant_is_the_experiment_with_fields_replaced_and_without_probes():
    variants = STRINGS.variants()
    assert list(variants) == ["mask_rate/15%", "mask_rate/wide"]
    variant, wide = variants.values()
    assert variant.name == "small/mask_rate/15%"
    assert variant.task == PcfgTask("cfg3b", root=16, mask_rate=0.15)
    assert (variant.teacher, variant.student, variant.loop) == (STRINGS.teacher, STRINGS.student, STRINGS.loop)
    assert [strategy.name for strategy in variant.strategies] == ["one_shot", "equal"]
    assert variant.student_training.budgets == (200,)
    assert variant.probes == Probes()
    assert variant.sizes is None
    assert not variant.ablations
    assert (wide.student, wide.task) == (dataclasses.replace(STRINGS.student, width=32), STRINGS.task)


@pytest.mark.parametrize(
    ("base", "selection", "changes", "probe"),
    [
        (STRINGS, Auto(), {"task": {"mask_rate": 0.5}}, "ngrams"),
        (STRINGS, RobustPeak(), {"task": {"mask_rate": 0.5}}, "ngrams"),
        (HIERARCHY, Levels(), {"student": Mlp((40,))}, "monomials"),
    ],
)
def test_a_variant_keeps_the_probe_that_its_strategies_select_by_and_no_other(base, selection, changes, probe):
    strategies = (Strategy("one_shot"), Strategy("fixed", schedule=FixedDuration(50), selection=selection))

    def probes(*names):
        ablation = Ablation("ablation", "Others", (Variant("other", changes),), names, (200,))
        asked = dataclasses.replace(base, strategies=strategies, comparisons=(), ablations=(ablation,))
        return asked.variants()["ablation/other"].probes

    assert probes("one_shot", "fixed").measured == (base.probes[probe],)
    assert probes("one_shot").measured == ()


def test_a_given_trajectory_is_that_of_variants_with_the_same_teacher():
    variants = changed(STRINGS, teacher_training__trajectory="given").variants()
    trajectories = {name: variant.teacher_training.trajectory for name, variant in variants.items()}
    assert trajectories == {"mask_rate/15%": None, "mask_rate/wide": "given"}


def test_the_longest_budget_that_is_probed_is_that_of_the_probed_strategies():
    experiment = changed(STRINGS, probes__longest_alone=True, strategies__one_shot__budgets=(100, 300))
    assert experiment.budgets[-1] == 400
    assert [budget for budget in experiment.budgets if experiment.probes_students_of(budget)] == [300]
    assert all(STRINGS.probes_students_of(budget) for budget in (200, 400))


def test_the_digest_is_the_same_wherever_arrays_live_whatever_is_drawn_or_said_and_in_any_order():
    """An experiment may go on with another mesh, and when other sizes have shown something."""
    placement = Placement(MeshSizes(data=4), teacher="sharded", residency="stacked")
    for same in (
        dict(placement=placement),
        dict(remarks={}),
        dict(comparisons=()),
        dict(loop=Loop(20, 200)),
        dict(strategies=STRINGS.strategies[::-1]),
    ):
        assert dataclasses.replace(STRINGS, **same).digest == STRINGS.digest
    assert re.fullmatch("[0-9a-f]{64}", STRINGS.digest)


def test_the_digest_changes_with_what_determines_results():
    changes = [
        *({"seed": 1}, {"name": "other"}, {"task__mask_rate": 0.2}, {"student__compute": "bfloat16"}),
        *({"teacher_training__seed": 2}, {"teacher_training__optimizer__beta2": 0.5}, {"sizes__seeds": (7,)}),
        *({"student_training__seeds": (3,)}, {"student_training__shared_batches": False}, {"evaluation__every": 20}),
        *({"loop__chunk_steps": 10},),
        *({"strategies__labels__name": "renamed"}, {"strategies__fixed__schedule__duration": 60}, {"sizes": None}),
        *({"probes__seed": 1}, {"ablations__mask_rate__budgets": (400,)}, {"strategies__one_shot__budgets": (200,)}),
    ]
    digests = {STRINGS.digest, *(changed(STRINGS, **change).digest for change in changes)}
    assert len(digests) == 1 + len(changes)
