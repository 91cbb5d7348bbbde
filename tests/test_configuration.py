"""Configurations: every field in a place of its own, and the experiment that is made of what stands there."""

import dataclasses
import json
import re
from pathlib import Path

import ml_collections
import pytest
from ml_collections import ConfigDict

from pdjax.configuration import configure, experiment_of, leaves, only
from pdjax.distill.losses import Distillation, ReverseKL
from pdjax.distill.schedules import EqualSplit, FixedDuration, TeacherSplit
from pdjax.distill.selection import Steps
from pdjax.distill.strategy import temperature_name
from pdjax.errors import UserError
from pdjax.experiment import Experiment
from pdjax.models.mlp import Mlp
from pdjax.settings import Count, make, named, plain, settings
from pdjax.train.optimizer import Adam, Sgd


@settings
class Block:
    name: str
    width: Count


@settings
class Blocks(Mlp):
    blocks: tuple[Block, ...] = ()


VARIANTS = {
    "parity_mlp": ("", "smoke", "large", "paper", "wide", "slow", "fast", "paper-wide", "paper-fast"),
    "parity_transformer": ("", "smoke", "paper"),
    "hierarchical": ("", "smoke", "paper", "wide", "paper-wide"),
    "pcfg": ("", "smoke", "short", "paper", "ablations", "paper-ablations"),
    "pcfg_gpt": ("", "smoke", "paper", "seeds", "ablations"),
    "text": ("", "smoke", "tune", "paper"),
    "theory": ("", "smoke", "sgd", "causal"),
    "checkpoints": ("FOLDER",),
}
ALL = [(name, variant) for name, variants in VARIANTS.items() for variant in variants]


@pytest.fixture(scope="module")
def smoke(experiment):
    return experiment("pcfg", "smoke")


@pytest.fixture
def load_config(load_config_file, request):
    """Loads a variant of a file of configs/ as a ConfigDict; FOLDER is one of checkpoints."""

    def load(name, variant):
        folder = variant == "FOLDER"
        return load_config_file(name).get_config(str(request.getfixturevalue("trained").folder) if folder else variant)

    return load


def changed(experiment, **values):
    """Returns the experiment of a configuration in which some places hold something else, dots written as __."""
    config = configure(experiment)
    config.update_from_flattened_dict({path.replace("__", "."): value for path, value in values.items()})
    return experiment_of(config)


def test_all_files_of_configs_are_here(root):
    assert set(VARIANTS) == {path.stem for path in Path(root / "configs").glob("*.py")}


@pytest.mark.parametrize(("name", "variant"), ALL)
def test_every_configuration_is_locked_and_comes_back_the_same(load_config, name, variant):
    config = load_config(name, variant)
    assert config.is_locked
    again = experiment_of(config)
    assert (plain(again), again.digest) == (plain(config.experiment), config.experiment.digest)
    recorded = make(Experiment, json.loads(json.dumps(plain(again))))
    assert (plain(recorded), recorded.digest) == (plain(again), again.digest)
    assert [strategy.name for strategy in again.strategies] == [s.name for s in config.experiment.strategies]


def places(tree, path=()):
    """Yields the place of every value of a ConfigDict: the dict that holds it, its key and its whole path."""
    for key in tree:
        value = tree.get(key)
        if isinstance(value, ConfigDict):
            yield from places(value, (*path, key))
        else:
            yield tree, key, (*path, key)


@pytest.mark.parametrize(("name", "variant"), ALL)
def test_every_field_has_a_place_of_its_own(load_config, name, variant):
    """Gives each a value of its own, and finds all of them there afterwards: no override changes another place."""
    given, config = {}, load_config(name, variant)
    for number, (owner, key, path) in enumerate(places(config)):
        kind = owner.get_type(key)
        if kind in (int, float, str, tuple):
            given[path] = (number,) if kind is tuple else kind(number)
            owner[key] = given[path]
    assert len(given) > 40
    assert {path: owner[key] for owner, key, path in places(config) if path in given} == given


@pytest.mark.parametrize(("name", "variant"), ALL)
def test_fields_that_are_printed_are_those_that_there_are_with_their_values(load_config, name, variant):
    config = load_config(name, variant)
    printed = {leaf.path.removeprefix("config."): leaf.value for leaf in leaves(config.experiment)}
    there = {".".join(path): owner[key] for owner, key, path in places(config)}
    assert printed == there


def differences(one, other, path=""):
    """Returns the paths of what differs in plain data."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return {p for key in one for p in differences(one[key], other[key], f"{path}.{key}")}
    if isinstance(one, list) and len(one) == len(other) and any(isinstance(part, dict) for part in one):
        return {p for i in range(len(one)) for p in differences(one[i], other[i], f"{path}.{i}")}
    return set() if one == other else {path}


def other(value):
    """Another value that is right wherever this one is and nothing else depends on it; None where there is none."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return 2 * value + 2 * (value == 0)
    return value / 2 or 0.5 if isinstance(value, float) else None


TIED = re.compile(
    r"loop\.chunk_steps|placement\.(mesh\..*|micro_batches)|evaluation\.every|.*\.count|.*\.window|task\.level|.*max_steps|student_training\.checkpoint_every|task\.(grammar|root|length|dimension|degree|depth)|.*batch_size|.*num_heads|.*\.width"
    r"|.*num_layers|.*(attend_to_selected|tied_head)|.*\.longest_alone|.*head_dim|probes\.(nonterminals|monomials|lemmas)\..*"
    r"|.*first_steps|teacher_training\.checkpoint_every|strategies\..*\.duration"
)
"""Fields whose other values have to agree with something else."""


@pytest.mark.parametrize("name", VARIANTS)
def test_every_number_can_be_overridden_alone_and_changes_one_field(load_config, name):
    base = experiment_of(load_config(name, "smoke" if "smoke" in VARIANTS[name] else VARIANTS[name][0]))
    tried = 0
    for leaf in leaves(base):
        path = leaf.path.removeprefix("config.")
        value = None if TIED.fullmatch(path) else other(leaf.value)
        if value is None:
            continue
        config = configure(base)
        config.update_from_flattened_dict({path: value})
        (found,) = differences(plain(base), plain(experiment_of(config)))
        assert found.rpartition(".")[2] == path.rpartition(".")[2]
        tried += 1
    assert tried > 20


def test_nothing_stands_for_a_value_and_a_value_for_nothing(smoke):
    assert changed(smoke, teacher_training__trajectory="there").teacher_training.trajectory == "there"
    assert changed(smoke, strategies__two_shot__budgets=(8,)).strategy("two_shot").budgets == (8,)
    assert changed(smoke, student_training__optimizer__clip_norm=None).student_training.optimizer.clip_norm is None
    with pytest.raises(TypeError, match="type"):
        configure(smoke).update_from_flattened_dict({"strategies.two_shot.budgets": "8"})


def test_integers_are_exact_floats_and_lists_are_tuples(smoke):
    strategy = changed(smoke, strategies__one_shot__temperature=1).strategy("one_shot")
    assert type(strategy.loss.temperature) is float
    assert strategy.loss == Distillation(1.0)
    assert changed(smoke, student_training__seeds=[4, 5]).student_training.seeds == (4, 5)


def test_a_class_is_chosen_where_its_fields_stand(smoke):
    """Fields that the classes share keep what they are; the others are as the new one has them by default."""
    half = changed(smoke, strategies__two_shot__schedule="TeacherSplit(kappa=0.25)").strategy("two_shot")
    assert half == dataclasses.replace(smoke.strategy("two_shot"), schedule=TeacherSplit(0.25))
    assert changed(smoke, strategies__two_shot__schedule="EqualSplit").strategy("two_shot").schedule == EqualSplit()
    full = changed(smoke, strategies__two_shot__schedule="pdjax.distill:FixedDuration(duration=2)")
    assert full.strategy("two_shot").schedule == FixedDuration(2)
    other = changed(smoke, strategies__two_shot__loss="ReverseKL", strategies__two_shot__temperature=0.5)
    assert other.strategy("two_shot").loss == ReverseKL(0.5, 0.0)
    plain_descent = changed(smoke, student_training__optimizer__kind="Sgd(warmup_fraction=0.5)")
    before = smoke.student_training.optimizer
    assert isinstance(before, Adam)
    assert plain_descent.student_training.optimizer == Sgd(before.schedule, 0.5, before.clip_norm)
    assert plain_descent.teacher_training == smoke.teacher_training
    given = changed(smoke, strategies__two_shot__selection__kind="Steps(steps=(16, 24))")
    assert given.strategy("two_shot").selection == Steps((16, 24))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("student.num_heads", 0, "expected config.student.num_heads of at least 1; found 0; change it"),
        ("seed", -1, "expected config.seed of at least 0; found -1; change it"),
        (
            "strategies.two_shot.duration",
            0,
            "expected config.strategies.two_shot.schedule.duration of at least 1; found 0; change it",
        ),
        (
            "strategies.two_shot.schedule",
            "EqualSplit(kappa=1.0)",
            "expected no field config.strategies.two_shot.schedule.kappa; found 1.0; remove or rename it",
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_path(smoke, path, value, message):
    with pytest.raises(UserError) as caught:
        changed(smoke, **{path: value})
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"strategies__two_shot__schedule": "EqualSplit", "strategies__two_shot__duration": 500},
            "expected a field of EqualSplit for config.strategies.two_shot.schedule.duration; found 500; "
            "remove the override, or choose a class that has the field",
        ),
        (
            {"student_training__optimizer__kind": "Sgd", "student_training__optimizer__beta2": 0.9},
            "expected a field of Sgd for config.student_training.optimizer.beta2; found 0.9; "
            "remove the override, or choose a class that has the field",
        ),
        (
            {"strategies__two_shot__loss": "ReverseKL(temperature=2.0)", "strategies__two_shot__temperature": 0.5},
            "expected config.strategies.two_shot.loss.temperature once; found 0.5, and 2.0 beside ReverseKL; "
            "remove one of them",
        ),
    ],
)
def test_an_override_that_would_have_no_effect_is_refused(smoke, overrides, message):
    with pytest.raises(UserError) as caught:
        changed(smoke, **overrides)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "name", ["Nowhere", "pdjax.train:Adam", "EqualSplit(", "TeacherSplit(0.25)", "TeacherSplit(kappa=f(1))"]
)
def test_a_class_that_is_none_is_refused_with_its_path(smoke, name):
    with pytest.raises(
        UserError, match=r"^in config\.strategies\.two_shot\.schedule: expected a subclass of Schedule; found"
    ):
        changed(smoke, strategies__two_shot__schedule=name)


def kept(load_config_file, text):
    with only(text):
        return experiment_of(load_config_file("pcfg").get_config("smoke"))


def test_some_strategies_are_kept_or_copied(load_config_file, smoke):
    some = kept(load_config_file, "two_shot,labels,long=two_shot")
    assert [strategy.name for strategy in some.strategies] == ["two_shot", "labels", "long"]
    two = smoke.strategy("two_shot")
    assert some.strategies[0] == two
    assert some.strategies[2] == dataclasses.replace(two, name="long")
    names = {"two_shot", "labels", "long"}
    for part in (*some.comparisons, *some.ablations):
        assert {*part.strategies} <= names
    before = named(smoke.comparisons)
    for comparison in some.comparisons:
        assert comparison.strategies == tuple(s for s in before[comparison.name].strategies if s in names)
    assert some.probes.students == tuple(s for s in smoke.probes.students if s in names)
    assert some.teacher_training == smoke.teacher_training
    assert len(experiment_of(load_config_file("pcfg").get_config("smoke")).strategies) > 3  # nothing is left of it


@pytest.mark.parametrize("text", ["labels,best", "new=best", "", ","])
def test_strategies_that_are_not_there_are_refused(load_config_file, text):
    with pytest.raises(UserError, match=r"expected .*strateg.*; found"):
        kept(load_config_file, text)


def test_fields_have_their_types_and_what_they_mean(smoke):
    by_path = {leaf.path: leaf for leaf in leaves(smoke)}
    assert by_path["config.strategies.two_shot.duration"].documentation == "T, student steps on each checkpoint"
    assert by_path["config.strategies.two_shot.budgets"].kind == "tuple[int, ...] | None"
    assert by_path["config.teacher_training.trajectory"].kind == "str | None"
    asides = {path.split(".")[1] for path, leaf in by_path.items() if not leaf.determines_results}
    # Of the models: whether layers are computed again.
    assert asides == {"comparisons", "loop", "placement", "remarks", "report", "student", "teacher"}
    assert by_path["config.loop.chunk_steps"].determines_results
    assert by_path["config.placement.residency"].kind == "'auto' | 'stacked' | 'streamed' | 'cached'"
    assert by_path["config.student_training.optimizer.kind"][1:3] == ("an Optimizer", "Adam")
    assert by_path["config.strategies.two_shot.schedule"].value == "FixedDuration"


def test_a_tuple_of_settings_that_nothing_names_comes_back_with_order_and_repetition(experiment):
    base = experiment("parity_mlp", "smoke")
    conv, wide, attention = Block("conv", 8), Block("conv", 16), Block("attention", 8)
    given = [dataclasses.replace(base, student=Blocks(blocks=b)) for b in ((conv, wide), (conv, attention), ())]
    for one in given:
        config = configure(one)
        assert experiment_of(config).student == one.student
        printed = {leaf.path: leaf.value for leaf in leaves(one)}
        assert printed["config.student.blocks"] == config.student.blocks == one.student.blocks
    turned = dataclasses.replace(base, student=Blocks(blocks=(attention, conv)))
    assert turned.digest != given[1].digest


@settings
class Placed(Mlp):
    place: Path = Path("there")


def test_what_cannot_be_written_down_is_refused_before_anything_is_made_of_it(experiment):
    base = dataclasses.replace(experiment("parity_mlp", "smoke"), student=Placed())
    with pytest.raises(UserError, match=r"^expected config\.student\.place to be text, .*; found .*Path\('there'\)"):
        configure(base)


def test_a_dict_that_nobody_configured_is_refused(smoke):
    with pytest.raises(UserError, match=r"ends with configure\(experiment\); found ConfigDict"):
        experiment_of(ml_collections.ConfigDict(plain(smoke)))


def test_names_of_temperatures_differ_and_can_stand_in_an_override():
    names = {t: temperature_name(t) for t in (1.0, 0.1, 0.01, 0.0, 1e-5, 10.0)}
    assert names[0.01] == "temperature_0p01"
    assert names[1e-5] == "temperature_1em05"
    assert len(set(names.values())) == len(names)
    assert all(re.fullmatch(r"\w+", name) for name in names.values())
