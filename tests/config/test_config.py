"""Strict configuration: what is accepted, and the one message of everything that is not."""

import copy
import dataclasses
import json
import re

import ml_collections
import pytest
from pdjax.config import Config, from_config_dict
from pdjax.config.building import placement

from pdjax.errors import UserError

BERT = {
    "kind": "bert",
    "num_layers": 2,
    "num_heads": 4,
    "head_dim": 8,
    "width": None,
    "feed_forward_multiple": 4,
    "dropout": 0.0,
    "attend_to_selected": False,
    "compute": "float32",
}
OPTIMIZER = {
    "kind": "adam",
    "schedule": "cosine",
    "warmup_fraction": 0.06,
    "clip_norm": 1.0,
    "beta1": 0.9,
    "beta2": 0.95,
    "epsilon": 1e-8,
}


def valid():
    """A whole configuration as plain nested data, one strategy for every schedule."""
    final = {"kind": "final", "count": None, "steps": None, "points": None, "levels": None}
    taught = {"selection": final, "duration": None, "kappa": None, "saturation": None}
    taught |= {"crossing": None, "temperature": 1e-4, "label_weight": 0.0, "budgets": None}
    return copy.deepcopy(
        {
            "name": "small",
            "seed": 0,
            "task": {
                "kind": "pcfg",
                "grammar": "cfg3b",
                "root": 16,
                "length": None,
                "mask_rate": 0.3,
                "select_bos": False,
            },
            "teacher": BERT,
            "student": BERT | {"num_heads": 2, "head_dim": None, "width": 16},
            "teacher_training": {
                "seed": 1,
                "extra_seeds": (),
                "steps": 800,
                "batch_size": 32,
                "learning_rate": 5e-3,
                "checkpoint_every": 100,
                "trajectory": None,
                "optimizer": OPTIMIZER,
            },
            "student_training": {
                "seeds": (0, 1, 2),
                "learning_rates": (1e-2, 5e-3),
                "budgets": (200, 400),
                "batch_size": 32,
                "shared_batches": True,
                "checkpoint_every": 100,
                "optimizer": OPTIMIZER | {"clip_norm": None},
            },
            "strategies": {
                "labels": taught | {"schedule": "labels", "label": "Labels", "label_weight": 1.0},
                "one_shot": taught | {"schedule": "one_shot", "label": "One-shot"},
                "fixed": taught
                | {"schedule": "fixed_duration", "label": "(2, T)", "duration": 50}
                | {"selection": final | {"kind": "steps", "steps": (100, 300)}},
                "equal": taught
                | {"schedule": "equal_split", "label": "Equal"}
                | {"selection": final | {"kind": "equal", "count": 4}},
                "teacher": taught
                | {"schedule": "teacher_split", "label": "T0/2", "kappa": 0.5}
                | {"selection": final | {"kind": "multiples", "count": 3}},
            },
            "comparisons": {
                "all": {
                    "kind": "training",
                    "title": "All",
                    "figure": "figure 1",
                    "strategies": ("one_shot", "fixed"),
                }
            },
            "ablations": {
                "mask_rate": {
                    "title": "Mask rate",
                    "figure": "figure 26",
                    "base": "30%",
                    "variants": {"15%": {"task": {"mask_rate": 0.15}}, "wide": {"student": {"width": 32}}},
                    "strategies": ("one_shot", "equal"),
                    "budgets": (200,),
                    "sizes": False,
                }
            },
            "probes": {
                "seed": 0,
                "monomials": None,
                "attention": None,
                "ngrams": {
                    "n": (2, 3),
                    "num_sentences": 8,
                    "num_positions": 2,
                    "percentiles": (50, 75),
                    "batch_size": 4,
                },
                "nonterminals": {
                    "num_heads": 2,
                    "num_train": 8,
                    "num_test": 8,
                    "batch_size": 4,
                    "learning_rate": 0.01,
                },
                "agreement": {"num_batches": 1, "batch_size": 8},
                "students": ("one_shot",),
                "longest_alone": False,
            },
            "sizes": {
                "panels": {"heads": {"2": BERT | {"num_heads": 2}, "4": dict(BERT)}},
                "seeds": (0, 1),
                "learning_rates": (1e-3,),
                "steps": 400,
                "batch_size": 32,
                "shared_batches": False,
                "optimizer": dict(OPTIMIZER),
            },
            "evaluation": {"every": 100, "num_batches": 2, "batch_size": 64},
            "loop": {"chunk_steps": 20, "save_every": 100, "writers": ("tensorboard",)},
            "placement": placement(),
            "remarks": {"R4": "shows at another size"},
        }
    )


GPT2 = {
    "kind": "gpt2",
    "num_layers": 2,
    "num_heads": 2,
    "head_dim": 8,
    "width": None,
    "feed_forward_multiple": 4,
    "dropout": 0.0,
    "tied_head": False,
    "heads": "concatenate",
    "compute": "float32",
}


def language():
    """A valid configuration of the next token's prediction on a grammar."""
    plain = valid()
    plain["task"] = {"kind": "pcfg_language", "grammar": "cfg3f", "root": 18, "length": None, "level": 3}
    plain["teacher"], plain["student"] = copy.deepcopy(GPT2), copy.deepcopy(GPT2)
    plain["sizes"]["panels"] = {"heads": {"2": copy.deepcopy(GPT2)}}
    plain["ablations"]["mask_rate"]["variants"] = {"level 2": {"task": {"level": 2}}}
    return plain


MONOMIALS = {"max_degree": 3, "off_support": 100, "num_inputs": 4096, "batch_size": 1024}


def parity():
    """A valid configuration of sparse parity: a GPT-2 teacher with probes and an MLP student."""
    plain = valid()
    plain["task"] = {"kind": "parity", "dimension": 10, "degree": 3, "support": "first", "support_seed": 0}
    plain["teacher"], plain["student"] = copy.deepcopy(GPT2), {"kind": "mlp", "widths": (20,), "compute": "float32"}
    plain["probes"] |= {"monomials": dict(MONOMIALS), "attention": {"num_inputs": 64}}
    plain["probes"] |= {"ngrams": None, "nonterminals": None, "agreement": None, "students": ()}
    plain["ablations"], plain["sizes"] = {}, None
    return plain


def hierarchical():
    """The same with a hierarchy of 7 features of 3 coordinates."""
    plain = parity()
    plain["task"] = plain["task"] | {"kind": "hierarchical", "dimension": 21, "depth": 3}
    return plain


def changed(base=None, **changes):
    """A valid configuration with some values replaced, keys written as paths with __ between names."""
    plain = valid() if base is None else base()
    for path, value in changes.items():
        *parents, last = path.split("__")
        parent = plain
        for name in parents:
            parent = parent[name]
        parent[last] = value
    return plain


def at(plain, keys):
    for name in keys:
        plain = plain[name]
    return plain


def error_of(plain):
    with pytest.raises(UserError) as caught:
        from_config_dict(plain)
    return str(caught.value)


def test_a_valid_configuration_becomes_dataclasses():
    config = from_config_dict(valid())
    assert isinstance(config, Config)
    assert config.task.root == 16
    assert config.teacher.model_width == 32
    assert config.student.model_width == 16
    assert config.student_training.budgets == (200, 400)
    assert config.teacher_training.optimizer.clip_norm == 1.0
    assert config.student_training.optimizer.clip_norm is None
    assert config.strategies["fixed"].selection.steps == (100, 300)
    progressive = [name for name, strategy in config.strategies.items() if strategy.is_progressive]
    assert progressive == ["fixed", "equal", "teacher"]


def test_a_config_dict_is_the_same_as_plain_dicts():
    assert from_config_dict(ml_collections.ConfigDict(valid())) == from_config_dict(valid())


def test_the_configuration_cannot_change():
    config = from_config_dict(valid())
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.task.mask_rate = 0.5


def test_a_strategy_may_have_budgets_of_its_own():
    config = from_config_dict(changed(strategies__fixed__budgets=(300, 200)))
    assert config.budgets == (200, 300, 400)
    asked = {key: [budget for budget in config.budgets if config.asks(key, budget)] for key in ("labels", "fixed")}
    assert asked == {"labels": [200, 400], "fixed": [200, 300]}


def test_a_variant_is_the_experiment_with_fields_replaced_and_without_probes():
    config = from_config_dict(valid())
    variant = config.variant("mask_rate", "15%")
    assert variant.name == "small/mask_rate/15%"
    assert variant.task == dataclasses.replace(config.task, mask_rate=0.15)
    assert (variant.teacher, variant.student, variant.loop) == (config.teacher, config.student, config.loop)
    assert list(variant.strategies) == ["one_shot", "equal"]
    assert variant.student_training.budgets == (200,)
    assert (variant.probes.ngrams, variant.probes.nonterminals, variant.probes.students) == (None, None, ())
    assert variant.sizes is None
    assert not variant.ablations
    wide = config.variant("mask_rate", "wide")
    assert (wide.student.model_width, wide.task) == (32, config.task)


@pytest.mark.parametrize(
    ("base", "kind", "fields", "probe"),
    [
        (valid, "auto", {"task": {"mask_rate": 0.5}}, "ngrams"),
        (valid, "robust_peak", {"task": {"mask_rate": 0.5}}, "ngrams"),
        (hierarchical, "levels", {"student": {"widths": (40,)}}, "monomials"),
    ],
)
def test_a_variant_keeps_the_probe_that_its_strategies_select_by_and_no_other(base, kind, fields, probe):
    plain = changed(base, strategies__fixed__selection__kind=kind, strategies__fixed__selection__steps=None)
    asked = valid()["ablations"]["mask_rate"] | {"variants": {"other": fields}, "strategies": ("one_shot", "fixed")}
    config = from_config_dict(plain | {"ablations": {"variants": asked}})
    probes = config.variant("variants", "other").probes
    names = ("monomials", "attention", "ngrams", "nonterminals", "agreement")
    assert {name for name in names if getattr(probes, name) is not None} == {probe}
    assert getattr(probes, probe) == getattr(config.probes, probe)
    without = from_config_dict(plain | {"ablations": {"variants": asked | {"strategies": ("one_shot",)}}})
    assert getattr(without.variant("variants", "other").probes, probe) is None


def test_a_given_trajectory_is_that_of_variants_with_the_same_teacher():
    config = from_config_dict(changed(teacher_training__trajectory="given"))
    trajectories = {name: config.variant("mask_rate", name).teacher_training.trajectory for name in ("15%", "wide")}
    assert trajectories == {"15%": None, "wide": "given"}


def test_the_longest_budget_that_is_probed_is_that_of_the_probed_strategies():
    longest = {"probes__longest_alone": True, "student_training__checkpoint_every": 100}
    config = from_config_dict(changed(**longest, strategies__one_shot__budgets=(100, 300)))
    assert config.budgets[-1] == 400
    assert [budget for budget in config.budgets if config.probes_students_of(budget)] == [300]
    assert all(from_config_dict(valid()).probes_students_of(budget) for budget in (200, 400))


def test_lists_are_taken_for_tuples():
    assert from_config_dict(changed(student_training__seeds=[0, 1, 2])) == from_config_dict(valid())


# A row: the change, then what the message has to say in this order: place, expected, found.
WRONG_VALUES = [
    # Types.
    ({"seed": "0"}, r"config\.seed of type int; found '0' \(str\)"),
    ({"seed": True}, r"config\.seed of type int; found True \(bool\)"),
    ({"seed": 0.0}, r"config\.seed of type int; found 0\.0 \(float\)"),
    ({"seed": None}, r"config\.seed of type int; found None \(NoneType\)"),
    ({"name": 3}, r"config\.name of type str; found 3 \(int\)"),
    ({"task__root": "16"}, r"config\.task\.root of type int; found '16' \(str\)"),
    ({"task__mask_rate": "0.3"}, r"config\.task\.mask_rate of type float; found '0\.3' \(str\)"),
    ({"task__mask_rate": True}, r"config\.task\.mask_rate of type float; found True \(bool\)"),
    ({"task__select_bos": 1}, r"config\.task\.select_bos of type bool; found 1 \(int\)"),
    ({"teacher__dropout": None}, r"config\.teacher\.dropout of type float; found None"),
    (
        {"teacher_training__optimizer__beta2": "high"},
        r"config\.teacher_training\.optimizer\.beta2 of type float; found 'high'",
    ),
    ({"student_training__seeds": 3}, r"config\.student_training\.seeds to be a tuple; found 3; write \(a, b\)"),
    ({"student_training__seeds": (0, "1")}, r"config\.student_training\.seeds\[1\] of type int; found '1'"),
    (
        {"strategies__fixed__selection__steps": (100, 300.0)},
        r"config\.strategies\.fixed\.selection\.steps\[1\] of type int; found 300\.0 \(float\)",
    ),
    ({"loop__writers": "wandb"}, r"config\.loop\.writers to be a tuple; found 'wandb'"),
    ({"strategies": (1, 2)}, r"config\.strategies to map names to values; found \(1, 2\)"),
    ({"teacher": None}, r"config\.teacher to hold fields, 'kind' among them; found None"),
    ({"teacher": {}}, r"config\.teacher\.kind; found no such key; choose one of \['bert', 'gpt2', 'mlp'\]"),
    ({"strategies__labels": "ce"}, r"config\.strategies\.labels to hold the fields of StrategyConfig; found 'ce'"),
    # Choices.
    ({"task__kind": "cfg"}, r"config\.task\.kind among 'pcfg', 'pcfg_language', 'parity', .*; found 'cfg'; choose one"),
    ({"task__kind": "parity"}, r"config\.task with the keys \[.*'support'.*\]; found unknown \['grammar', .*\]"),
    ({"student__kind": None}, r"config\.student\.kind among 'bert', 'gpt2', 'mlp'; found None"),
    (
        {"student_training__optimizer__schedule": "linear"},
        r"config\.student_training\.optimizer\.schedule among 'constant', 'cosine'; found 'linear'",
    ),
    (
        {"strategies__fixed__selection__kind": "best"},
        r"config\.strategies\.fixed\.selection\.kind among 'final', 'equal', .*; found 'best'",
    ),
    ({"loop__writers": ("csv", "wandb")}, r"in config\.loop: .*writers among 'tensorboard', 'wandb'; found \['csv'\]"),
    # Ranges.
    ({"task__mask_rate": 0.0}, r"in config\.task: expected task\.mask_rate between 0 and 1; found 0\.0"),
    ({"task__mask_rate": 1.0}, r"in config\.task: expected task\.mask_rate between 0 and 1; found 1\.0"),
    ({"teacher__num_layers": 0}, r"in config\.teacher: expected num_layers of at least 1; found 0"),
    ({"student__num_heads": 0}, r"in config\.student: expected num_heads of at least 1; found 0"),
    ({"teacher__dropout": 1.0}, r"in config\.teacher: expected dropout in \[0, 1\); found 1\.0"),
    (
        {"teacher_training__optimizer__warmup_fraction": 1.0},
        r"in config\.teacher_training\.optimizer: expected warmup_fraction in \[0, 1\); found 1\.0",
    ),
    (
        {"student_training__optimizer__beta1": -0.1},
        r"in config\.student_training\.optimizer: expected beta1 in \[0, 1\); found -0\.1",
    ),
    (
        {"student_training__optimizer__clip_norm": 0.0},
        r"in config\.student_training\.optimizer: expected a positive clip_norm or None; found 0\.0",
    ),
    ({"teacher_training__steps": 0}, r"in config\.teacher_training: .*teacher_training\.steps of at least 1; found 0"),
    (
        {"teacher_training__learning_rate": 0.0},
        r"in config\.teacher_training: expected a positive teacher_training\.learning_rate; found 0\.0",
    ),
    (
        {"teacher_training__learning_rate": float("nan")},
        r"in config\.teacher_training: expected a positive teacher_training\.learning_rate; found nan",
    ),
    (
        {"student_training__learning_rates": (1e-3, -1e-3)},
        r"in config\.student_training: .*student_training\.learning_rates; found \(0\.001, -0\.001\)",
    ),
    (
        {"student_training__seeds": ()},
        r"in config\.student_training: .*one entry in student_training\.seeds; found none",
    ),
    (
        {"student_training__budgets": (0, 200)},
        r"in config\.student_training: expected budgets of at least 1 step; found \(0, 200\)",
    ),
    (
        {"strategies__one_shot__temperature": -1.0},
        r"in config\.strategies\.one_shot: expected a temperature of at least 0; found -1\.0",
    ),
    (
        {"strategies__one_shot__temperature": float("nan")},
        r"in config\.strategies\.one_shot: expected a temperature of at least 0; found nan",
    ),
    (
        {"strategies__one_shot__label_weight": 1.5},
        r"in config\.strategies\.one_shot: expected label_weight in \[0, 1\]; found 1\.5",
    ),
    ({"evaluation__num_batches": 0}, r"in config\.evaluation: expected evaluation\.num_batches of at least 1; found 0"),
    ({"loop__chunk_steps": 0}, r"in config\.loop: expected loop\.chunk_steps of at least 1; found 0"),
    ({"strategies": {}}, r"in config: expected at least one strategy; found none; add one"),
    # Contradictions within a part.
    (
        {"student__width": 17},
        r"in config\.student: expected a width that 2 heads divide; found width 17; change width or num_heads",
    ),
    (
        {"teacher__width": 64},
        r"in config\.teacher: expected width = num_heads \* head_dim = 4 \* 8 = 32; found width 64",
    ),
    ({"teacher__head_dim": None}, r"in config\.teacher: expected head_dim or width; found neither"),
    ({"teacher__head_dim": 0}, r"in config\.teacher: expected a width of at least 1; found width 0"),
    ({"student__width": -16}, r"in config\.student: expected a width of at least 1; found width -16"),
    (
        {"teacher_training__checkpoint_every": 300},
        r"in config\.teacher_training: .*checkpoint_every that divides steps = 800; found 300",
    ),
    (
        {"student_training__budgets": (200, 400, 200)},
        r"in config\.student_training: expected distinct .*student_training\.budgets; found \(200, 400, 200\)",
    ),
    (
        {"student_training__seeds": (1, 1)},
        r"in config\.student_training: expected distinct .*student_training\.seeds; found \(1, 1\)",
    ),
    (
        {"strategies__fixed__selection__steps": (300, 100)},
        r"in config\.strategies\.fixed\.selection: .*increasing order.*; found \(300, 100\); sort selection\.steps",
    ),
    (
        {"strategies__fixed__selection__steps": (100, 100)},
        r"in config\.strategies\.fixed\.selection: .*increasing order.*; found \(100, 100\)",
    ),
    (
        {"strategies__fixed__selection__steps": None},
        r"in config\.strategies\.fixed\.selection: .*selection\.steps with selection\.kind 'steps'; found None",
    ),
    (
        {"strategies__equal__selection__count": None},
        r"in config\.strategies\.equal\.selection: .*selection\.count with selection\.kind 'equal'; found None",
    ),
    (
        {"strategies__equal__selection__count": 0},
        r"in config\.strategies\.equal\.selection: expected selection\.count of at least 1; found 0",
    ),
    (
        {"strategies__fixed__duration": None},
        r"in config\.strategies\.fixed: expected a positive duration with schedule 'fixed_duration'; found None",
    ),
    (
        {"strategies__teacher__kappa": 0.0},
        r"in config\.strategies\.teacher: expected a positive kappa with schedule 'teacher_split'; found 0\.0",
    ),
    (
        {"strategies__labels__label_weight": 0.5},
        r"in config\.strategies\.labels: .*found schedule 'labels' with label_weight 0\.5; .*runs no teacher",
    ),
    (
        {"strategies__one_shot__label_weight": 1.0},
        r"in config\.strategies\.one_shot: .*found schedule 'one_shot' with label_weight 1\.0",
    ),
    # Lengths that the chunks of 20 steps do not divide.
    ({"loop__save_every": 30}, r"in config: expected loop\.save_every to be a multiple of .* = 20; found 30"),
    ({"evaluation__every": 50}, r"in config: expected evaluation\.every to be a multiple of .* = 20; found 50"),
    (
        {"teacher_training__steps": 810, "teacher_training__checkpoint_every": 90},
        r"in config: expected teacher_training\.steps to be a multiple of .* = 20; found 810",
    ),
    (
        {"teacher_training__checkpoint_every": 50},
        r"in config: expected teacher_training\.checkpoint_every to be a multiple of .* = 20; found 50",
    ),
    (
        {"student_training__budgets": (200, 410)},
        r"in config: expected student_training\.budgets\[1\] to be a multiple of .* = 20; found 410",
    ),
]


@pytest.mark.parametrize(
    ("changes", "message"), WRONG_VALUES, ids=lambda part: ",".join(part) if isinstance(part, dict) else "message"
)
def test_wrong_values(changes, message):
    assert re.search(message, error_of(changed(**changes)))


# The same for experiments on parities.
WRONG_PARITIES = [
    (parity, {"task__degree": 11}, r"in config\.task: .*task\.degree of at most task\.dimension = 10; found 11"),
    (parity, {"task__degree": 0}, r"in config\.task: expected task\.degree of at least 1; found 0"),
    (parity, {"task__support": "last"}, r"config\.task\.support among 'first', 'random'; found 'last'"),
    (
        hierarchical,
        {"task__dimension": 20},
        r"in config\.task: .*task\.dimension of at least 21, 7 features of 3 coordinates that do not overlap; found 20",
    ),
    (hierarchical, {"task__depth": 0}, r"in config\.task: .*task\.depth of at least 1; found 0; .*has no classes"),
    (parity, {"student__widths": ()}, r"in config\.student: expected at least one entry in widths; found none"),
    (
        parity,
        {"student__widths": (20, 0)},
        r"in config\.student: expected hidden widths of at least 1; found \(20, 0\)",
    ),
    (
        parity,
        {"teacher__heads": "average"},
        r"in config\.teacher: .*head_dim and width with averaged heads; found .*None",
    ),
    (parity, {"teacher__num_heads": 0}, r"in config\.teacher: expected num_heads of at least 1; found 0"),
    (
        hierarchical,
        {"teacher__tied_head": True},
        r"teacher\.tied_head only where the classes are as many as the tokens, 2; found the 8 classes",
    ),
    (parity, {"student": BERT}, r"a model for the task 'parity' as student: mlp or gpt2; found bert"),
    (
        valid,
        {"student": {"kind": "mlp", "widths": (20,), "compute": "float32"}},
        r"a model for the task 'pcfg' as student: bert; found mlp",
    ),
    (
        valid,
        {"sizes__panels__heads__2": GPT2},
        r"a model for the task 'pcfg' as sizes\.panels\.heads\.2: bert; found gpt2",
    ),
    (
        valid,
        {"strategies__fixed__selection__kind": "auto", "probes__ngrams": None},
        r"probes\.ngrams for strategies\.fixed with selection\.kind 'auto'; found None",
    ),
    (
        valid,
        {"strategies__fixed__schedule": "till_robust"},
        r"in config\.strategies\.fixed: expected crossing with schedule 'till_robust'; found None",
    ),
    (
        valid,
        {"strategies__teacher__selection__steps": (100, 200)},
        r"one selection\.steps with selection\.kind 'multiples'; found \(100, 200\)",
    ),
    (
        valid,
        {"strategies__fixed__budgets": (200, 310)},
        r"strategies\.fixed\.budgets to be a multiple of loop\.chunk_steps = 20; found 310",
    ),
    (valid, {"strategies__fixed__budgets": (0,)}, r"budgets of at least 1 step, or None; found \(0,\)"),
    (valid, {"strategies__fixed__budgets": ()}, r"at least one entry in budgets, or None; found none"),
    (valid, {"probes__students": ("one_shot", "best")}, r"probes\.students among \[.*\]; found \['best'\]"),
    (
        valid,
        {"student_training__checkpoint_every": None},
        r"student_training\.checkpoint_every with probes\.students; found None",
    ),
    (
        valid,
        {"student_training__checkpoint_every": 80},
        r"student_training\.checkpoint_every that divides the budget 200, or None; found 80",
    ),
    (
        valid,
        {"student_training__checkpoint_every": 50},
        r"student_training\.checkpoint_every to be a multiple of loop\.chunk_steps = 20; found 50",
    ),
    (valid, {"probes__ngrams__percentiles": (25, 75)}, r"ngrams\.percentiles between 0 and 100, 50 among them; found"),
    (valid, {"probes__ngrams__percentiles": (50, 101)}, r"ngrams\.percentiles between 0 and 100, 50 among them; found"),
    (valid, {"probes__ngrams__n": (1, 2)}, r"ngrams\.n of at least 2; found \(1, 2\)"),
    (valid, {"probes__ngrams__batch_size": 0}, r"ngrams\.batch_size of at least 1; found 0"),
    (valid, {"ablations__mask_rate__variants": {}}, r"at least one entry in variants; found none"),
    (
        valid,
        {"ablations__mask_rate__variants__15%__task__mask_rat": 0.2},
        r"in ablations\.mask_rate\.variants\.15%: expected config\.task with the keys .*; found unknown \['mask_rat'\]",
    ),
    (
        valid,
        {"ablations__mask_rate__variants__wide": {"student": {"width": 33}}},
        r"in ablations\.mask_rate\.variants\.wide: .*expected a width that 2 heads divide; found width 33",
    ),
    (valid, {"ablations__mask_rate__budgets": (210,)}, r"in ablations\.mask_rate\..*multiple of .* = 20; found 210"),
    (
        valid,
        {"ablations__mask_rate__strategies": ("best",)},
        r"ablations\.mask_rate\.strategies among \[.*\]; found \['best'\]",
    ),
    (valid, {"ablations__mask_rate__base": "15%"}, r"another name for base than those of variants; found 15%"),
    (valid, {"ablations__mask_rate__variants": {"a/b": {}}}, r"names of variants that can be directories; found"),
    (
        parity,
        {"probes__ngrams": {"n": (2,), "num_sentences": 1, "num_positions": 1, "percentiles": (50,), "batch_size": 1}},
        r"no probes of strings for the task 'parity'; found \['ngrams'\]",
    ),
    (valid, {"probes__monomials": MONOMIALS}, r"no probes of a support for the task 'pcfg'; found \['monomials'\]"),
    (
        language,
        {"task__level": 0},
        r"in config\.task: expected task\.level of at least 1; found 0; level 1 counts every",
    ),
    (language, {"task__mask_rate": 0.3}, r"config\.task with the keys \[.*'level'.*\]; found unknown \['mask_rate'\]"),
    (language, {"student": BERT}, r"a model for the task 'pcfg_language' as student: gpt2; found bert"),
    (
        language,
        {"teacher": {"kind": "mlp", "widths": (20,), "compute": "float32"}},
        r"a model for the task 'pcfg_language' as teacher: gpt2; found mlp",
    ),
    (
        language,
        {"sizes__panels__heads__2": BERT},
        r"a model for the task 'pcfg_language' as sizes\.panels\.heads\.2: gpt2; found bert",
    ),
    (
        language,
        {"probes__attention": {"num_inputs": 64}},
        r"no probes of a support for the task 'pcfg_language'; found \['attention'\]",
    ),
    (
        language,
        {"strategies__fixed__selection__kind": "transition", "strategies__fixed__selection__points": ("start",)},
        r"a task of one class per input for strategies\.fixed .*found task 'pcfg_language'; use 'phase'",
    ),
    (
        parity,
        {"teacher__num_layers": 1},
        r"a gpt2 teacher of 2 layers for probes\.attention; found gpt2 with 1 layers; set it to None",
    ),
    (
        parity,
        {"probes__monomials__batch_size": 1000},
        r"monomials\.batch_size that divides num_inputs = 4096; found 1000",
    ),
    (parity, {"probes__attention__num_inputs": 0}, r"attention\.num_inputs of at least 1; found 0"),
    (
        parity,
        {"strategies__fixed__selection__kind": "levels", "probes__monomials": None},
        r"probes\.monomials for strategies\.fixed with selection\.kind 'levels'; found None",
    ),
    (
        parity,
        {"strategies__fixed__selection__kind": "transition"},
        r"in config\.strategies\.fixed\.selection: .*selection\.points with selection\.kind 'transition'; found None",
    ),
    (
        parity,
        {"strategies__fixed__schedule": "till_saturate"},
        r"in config\.strategies\.fixed: expected saturation with schedule 'till_saturate'; found None",
    ),
    (
        parity,
        {"strategies__fixed__saturation": {"score": "accuracy", "window": 0, "min_gain": 0.01, "max_steps": 10}},
        r"in config\.strategies\.fixed\.saturation: expected saturation\.window of at least 1; found 0",
    ),
    (
        parity,
        {"teacher_training__extra_seeds": (1, 2)},
        r"in config\.teacher_training: .*distinct .*extra_seeds.*\(1, 2\)",
    ),
    (
        parity,
        {"teacher_training__extra_seeds": (2,), "teacher_training__trajectory": "there"},
        r"in config\.teacher_training: .*no teacher_training\.extra_seeds with a given trajectory; found \(2,\)",
    ),
    (
        parity,
        {"comparisons__all__strategies": ("labels", "best")},
        r"comparisons\.all\.strategies among \[.*'labels'.*\]; found \['best'\]",
    ),
    (
        parity,
        {"strategies__fixed__saturation": {"score": "accuracy", "window": 5, "min_gain": 0.01, "max_steps": 500}},
        r"strategies\.fixed\.saturation\.max_steps above window \* evaluation\.every = 500 steps; found 500",
    ),
    (
        parity,
        {"strategies__fixed__selection__points": ()},
        r"at least one entry in selection\.points, or None; found none",
    ),
    (
        hierarchical,
        {"strategies__fixed__selection__levels": (0, 3)},
        r"strategies\.fixed\.selection\.levels from 0 to 2; found \[3\]; the root is level 0",
    ),
    (
        valid,
        {"strategies__fixed__selection__kind": "transition", "strategies__fixed__selection__points": ("start",)},
        r"a task of one class per input for strategies\.fixed .*found task 'pcfg'; use 'phase'",
    ),
    (valid, {"sizes__panels": {"a/b": {"2": BERT}}}, r"names of panels .* directories; found \['a/b'\]; leave out"),
    (parity, {"comparisons__all__strategies": ()}, r"at least one entry in comparisons\.all\.strategies; found none"),
    (valid, {"sizes__panels": {}}, r"in config\.sizes: expected at least one panel in sizes\.panels; found none"),
    (valid, {"sizes__panels__heads": {}}, r"in config\.sizes: .*one model in sizes\.panels\.heads; found none"),
    (valid, {"sizes__seeds": (1, 1)}, r"in config\.sizes: expected distinct entries in sizes\.seeds; found \(1, 1\)"),
    (valid, {"sizes__steps": 410}, r"in config: expected sizes\.steps to be a multiple of .* = 20; found 410"),
]


@pytest.mark.parametrize(
    ("base", "changes", "message"), WRONG_PARITIES, ids=lambda part: ",".join(part) if isinstance(part, dict) else ""
)
def test_wrong_parities_and_what_came_with_them(base, changes, message):
    assert from_config_dict(base()).name == "small"
    assert re.search(message, error_of(changed(base, **changes)))


# What lies just on the right side of the refusals above.
RIGHT_PARITIES = {
    "k = d": (parity, {"task__degree": 10}),
    "depth 1": (hierarchical, {"task__depth": 1}),
    "random support": (hierarchical, {"task__support": "random"}),
    "averaged heads of any size": (
        parity,
        {"teacher__heads": "average", "teacher__num_heads": 3, "teacher__width": 20},
    ),
    "tied head with as many classes as tokens": (parity, {"teacher__tied_head": True}),
    "tied head where classes are tokens": (language, {"teacher__tied_head": True}),
    "every token": (language, {"task__level": 1}),
    "the whole grammar": (language, {"task__root": None}),
    "tied head at depth 1": (hierarchical, {"task__depth": 1, "teacher__tied_head": True}),
    "one layer without the attention probe": (parity, {"teacher__num_layers": 1, "probes__attention": None}),
    "mlp teacher without the attention probe": (
        parity,
        {"teacher": {"kind": "mlp", "widths": (20,), "compute": "float32"}, "probes__attention": None},
    ),
    "levels with monomials": (parity, {"strategies__fixed__selection__kind": "levels"}),
    "no monomials without levels": (parity, {"probes__monomials": None}),
    "other seeds": (parity, {"teacher_training__extra_seeds": (2, 0)}),
    "a given trajectory": (parity, {"teacher_training__trajectory": "there"}),
    "no comparisons": (parity, {"comparisons": {}}),
    "gpt2 and mlp in a panel": (
        parity,
        {
            "sizes": {
                "panels": {"kinds": {"1": GPT2, "2": {"kind": "mlp", "widths": (20, 20), "compute": "float32"}}},
                "seeds": (0,),
                "learning_rates": (1e-3,),
                "steps": 400,
                "batch_size": 32,
                "shared_batches": False,
                "optimizer": OPTIMIZER,
            }
        },
    ),
}


@pytest.mark.parametrize(("base", "changes"), RIGHT_PARITIES.values(), ids=RIGHT_PARITIES)
def test_right_parities_convert_and_come_back_the_same(base, changes):
    config = from_config_dict(changed(base, **changes))
    assert from_config_dict(json.loads(json.dumps(config.as_dict()))) == config
    assert config.digest != from_config_dict(base()).digest


# The valid configuration of parity with another value for what only parities have.
@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("task__dimension", 11),
        ("task__degree", 2),
        ("task__support", "random"),
        ("task__support_seed", 1),
        ("student__widths", (20, 20)),
        ("teacher__heads", "average"),
        ("teacher__tied_head", True),
        ("teacher_training__extra_seeds", (2,)),
        ("probes__seed", 1),
        ("probes__monomials__max_degree", 2),
        ("probes__monomials__off_support", 50),
        ("probes__monomials__num_inputs", 2048),
        ("probes__monomials__batch_size", 512),
        ("probes__attention__num_inputs", 65),
        ("strategies__fixed__saturation", {"score": "accuracy", "window": 3, "min_gain": 0.01, "max_steps": 400}),
        ("strategies__fixed__selection__points", ("end",)),
        ("strategies__fixed__selection__levels", (0,)),
    ],
)
def test_digest_changes_with_what_only_parities_have(path, value):
    further = {"teacher__width": 16} if value == "average" else {}
    assert from_config_dict(changed(parity, **{path: value}, **further)).digest != from_config_dict(parity()).digest


PATHS = [
    (),
    ("task",),
    ("student",),
    ("teacher_training", "optimizer"),
    ("strategies", "fixed", "selection"),
    ("loop",),
    ("placement",),
    ("placement", "mesh"),
    ("comparisons", "all"),
    ("ablations", "mask_rate"),
    ("probes",),
    ("probes", "ngrams"),
    ("probes", "nonterminals"),
    ("probes", "agreement"),
    ("sizes",),
]


@pytest.mark.parametrize("keys", PATHS)
def test_unknown_and_missing_keys(keys):
    path = ".".join(("config", *keys))
    unions = {("task",), ("student",)}  # what they are is chosen by their kind, see WRONG_VALUES
    for key in [key for key in at(valid(), keys) if key != "kind" or keys not in unions]:
        plain = valid()
        del at(plain, keys)[key]
        message = error_of(plain)
        assert message.startswith(f"expected {path} with the keys [")
        assert f"; found ['{key}'] missing; add" in message
        plain = valid()
        part = at(plain, keys)
        part["other_" + key] = part[key]
        message = error_of(plain)
        assert message.startswith(f"expected {path} with the keys [")
        assert f"'{key}'" in message.split("; found ")[0]
        assert f"; found unknown ['other_{key}']; remove or rename" in message


def test_only_the_first_mistake_is_reported_and_on_one_line():
    message = error_of(changed(seed="0", task__mask_rate=2.0))
    assert message.count("expected") == 1
    assert "\n" not in message


def test_an_integer_is_an_exact_float():
    config = from_config_dict(changed(strategies__one_shot__temperature=1, teacher_training__learning_rate=1))
    assert type(config.strategies["one_shot"].temperature) is float
    assert config.strategies["one_shot"].temperature == 1.0
    same = from_config_dict(changed(strategies__one_shot__temperature=1.0, teacher_training__learning_rate=1.0))
    assert config.digest == same.digest


def test_temperature_zero_and_mixed_losses_are_allowed():
    changes = {"strategies__one_shot__temperature": 0.0, "strategies__one_shot__label_weight": 0.5}
    strategy = from_config_dict(changed(**changes)).strategies["one_shot"]
    assert (strategy.temperature, strategy.label_weight) == (0.0, 0.5)


def reversed_keys(value):
    return {k: reversed_keys(value[k]) for k in reversed(value)} if isinstance(value, dict) else value


def test_digest_is_stable_under_the_order_of_keys():
    plain = valid()
    assert list(reversed_keys(plain)) == list(plain)[::-1]
    assert from_config_dict(reversed_keys(plain)).digest == from_config_dict(plain).digest
    assert re.fullmatch("[0-9a-f]{64}", from_config_dict(plain).digest)


def test_mappings_keep_the_order_in_which_they_are_written(load_config_file):
    plain = reversed_keys(valid())
    config = from_config_dict(ml_collections.ConfigDict(plain))
    assert list(config.strategies) == list(plain["strategies"]) != sorted(plain["strategies"])
    shipped = from_config_dict(load_config_file("pcfg").get_config())
    assert list(shipped.strategies)[:5] == ["labels", "one_shot", "progressive", "two_shot", "robust_peak"]
    assert list(from_config_dict(shipped.as_dict()).strategies) == list(shipped.strategies)  # as the report reads them


def leaves(value, path=()):
    if not isinstance(value, dict):
        return [path]
    return [leaf for key in value for leaf in leaves(value[key], (*path, key))]


def other(value):
    """Another value that is right wherever this one is."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value * 2 + 2 * (value == 0)
    if isinstance(value, float):
        return value / 2 or 0.5
    if isinstance(value, tuple) and len(value) < 2:
        return () if value == ("tensorboard",) else (7,) if value == () else (2 * value[0],)
    return value[:-1]


def test_digest_changes_with_every_value():
    before = from_config_dict(valid()).digest
    # Choices, and what other values have to agree with.
    tied = {"kind", "schedule", "label_weight", "chunk_steps", "compute", "students"}
    seen, digests = 0, {before}
    for path in leaves(valid()):
        value = at(valid(), path)
        if path[-1] in tied or path[0] in ("placement", "remarks") or value is None:
            continue
        digests.add(from_config_dict(changed(**{"__".join(path): other(value)})).digest)
        seen += 1
    others = {"task__length": 90, "loop__chunk_steps": 10, "teacher_training__trajectory": "elsewhere"}
    for path, value in (others | {"student__compute": "bfloat16"}).items():
        digests.add(from_config_dict(changed(**{path: value})).digest)
        seen += 1
    plain = valid()
    plain["strategies"]["renamed"] = plain["strategies"].pop("labels")
    digests.add(from_config_dict(plain).digest)
    assert seen > 50
    assert len(digests) == seen + 2


def test_digest_is_the_same_wherever_arrays_live_and_whatever_is_said_of_it():
    """An experiment may go on with another mesh, and when other sizes have shown something."""
    placement = {"placement__mesh__data": 4, "placement__teacher": "sharded", "placement__residency": "stacked"}
    for others in (placement, {"remarks": {}}, {"remarks__R4": "shows nowhere"}):
        assert from_config_dict(changed(**others)).digest == from_config_dict(valid()).digest


def test_as_dict_is_json_and_comes_back_the_same():
    config = from_config_dict(valid())
    again = from_config_dict(json.loads(json.dumps(config.as_dict())))
    assert again == config
    assert again.digest == config.digest
    assert config.as_dict()["student_training"]["budgets"] == [200, 400]
