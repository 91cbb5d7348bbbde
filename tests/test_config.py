"""Strict configuration: what is accepted, and the one message of everything that is not."""

import copy
import dataclasses
import json
import re

import ml_collections
import pytest

from pdjax.config import Config, from_config_dict
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
    final = {"kind": "final", "count": None, "steps": None}
    taught = {"selection": final, "duration": None, "kappa": None, "temperature": 1e-4, "label_weight": 0.0}
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
                "optimizer": OPTIMIZER | {"clip_norm": None},
            },
            "strategies": {
                "labels": taught | {"schedule": "labels", "label": "Labels", "label_weight": 1.0},
                "one_shot": taught | {"schedule": "one_shot", "label": "One-shot"},
                "fixed": taught
                | {"schedule": "fixed_duration", "label": "(2, T)", "duration": 50}
                | {"selection": {"kind": "steps", "count": None, "steps": (100, 300)}},
                "equal": taught
                | {"schedule": "equal_split", "label": "Equal"}
                | {"selection": {"kind": "equal", "count": 4, "steps": None}},
                "teacher": taught
                | {"schedule": "teacher_split", "label": "T0/2", "kappa": 0.5}
                | {"selection": {"kind": "multiples", "count": 3, "steps": None}},
            },
            "evaluation": {"every": 100, "num_batches": 2, "batch_size": 64},
            "loop": {"chunk_steps": 20, "save_every": 100, "writers": ("tensorboard",)},
        }
    )


def changed(**changes):
    """The valid configuration with some values replaced, keys written as paths with __ between names."""
    plain = valid()
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = plain
        for name in parents:
            place = place[name]
        place[last] = value
    return plain


def at(plain, place):
    for name in place:
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
    ({"teacher": None}, r"config\.teacher to hold the fields of BertConfig; found None"),
    ({"strategies__labels": "ce"}, r"config\.strategies\.labels to hold the fields of StrategyConfig; found 'ce'"),
    # Choices.
    ({"task__kind": "parity"}, r"config\.task\.kind among 'pcfg'; found 'parity'; choose one"),
    ({"student__kind": None}, r"config\.student\.kind among 'bert'; found None"),
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


PLACES = [
    (),
    ("task",),
    ("student",),
    ("teacher_training", "optimizer"),
    ("strategies", "fixed", "selection"),
    ("loop",),
]


@pytest.mark.parametrize("place", PLACES)
def test_unknown_and_missing_keys(place):
    path = ".".join(("config", *place))
    for key in list(at(valid(), place)):
        plain = valid()
        del at(plain, place)[key]
        message = error_of(plain)
        assert message.startswith(f"expected {path} with the keys [")
        assert f"; found ['{key}'] missing; add" in message
        plain = valid()
        part = at(plain, place)
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
    return value[:-1]


def test_digest_changes_with_every_value():
    before = from_config_dict(valid()).digest
    tied = {"kind", "schedule", "label_weight", "chunk_steps"}  # choices, and what other values have to agree with
    seen, digests = 0, {before}
    for path in leaves(valid()):
        value = at(valid(), path)
        if path[-1] in tied or value is None:
            continue
        digests.add(from_config_dict(changed(**{"__".join(path): other(value)})).digest)
        seen += 1
    for path, value in [("task__length", 90), ("loop__chunk_steps", 10), ("teacher_training__trajectory", "elsewhere")]:
        digests.add(from_config_dict(changed(**{path: value})).digest)
        seen += 1
    plain = valid()
    plain["strategies"]["renamed"] = plain["strategies"].pop("labels")
    digests.add(from_config_dict(plain).digest)
    assert seen > 50
    assert len(digests) == seen + 2


def test_as_dict_is_json_and_comes_back_the_same():
    config = from_config_dict(valid())
    again = from_config_dict(json.loads(json.dumps(config.as_dict())))
    assert again == config
    assert again.digest == config.digest
    assert config.as_dict()["student_training"]["budgets"] == [200, 400]
