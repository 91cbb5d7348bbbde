"""Settings that make no sense are refused in one line when they are read, as classes of values and of fields."""

import importlib
import math
import random
from pathlib import Path

import pytest

from pdjax.configuration import experiment_of, leaves
from pdjax.errors import UserError
from pdjax.stages.memory import require_memory
from pdjax.stages.runs import foresee_runs
from pdjax.stages.teacher import stored_steps

NUMBERS = (0, -1, 2**31 - 1, 2**31, 2**63, 10**30, -0.5, 1e-50, 1e-39, 1e300, math.inf, math.nan)
OTHERS = ("", "../../evil", "a/b", "x" * 300, "~", ".", "\0", None, (), (0,), (1, 1), (2**31 - 1,))


def config_of(name, /, **changes):
    """Returns a small configuration with some fields changed, or None where ml_collections refuses a type."""
    config = importlib.import_module(f"configs.{name}").get_config("smoke")
    for path, value in changes.items():
        *above, last = path.split("__")
        node = config
        for part in above:
            node = node[part]
        try:
            node[last] = value
        except TypeError:
            return None
    return config


def read(config):
    """Returns the experiment of a configuration, as the command line reads it and checks it before it begins."""
    experiment = experiment_of(config)
    for one in (experiment, *experiment.variants().values()):
        foresee_runs(one, stored_steps(one, Path("nowhere")))
        require_memory(one)
    return experiment


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"teacher_training__learning_rate": 1e-50}, "that float32 holds"),
        ({"teacher_training__learning_rate": 1e300}, "that float32 holds"),
        ({"teacher_training__learning_rate": math.inf}, "finite"),
        ({"student_training__learning_rates": (1e-2, 1e-2 + 1e-12)}, "distinct learning_rates"),
        ({"strategies__one_shot__temperature": math.inf}, "a finite number"),
        ({"strategies__one_shot__temperature": 1e-50}, "that float32 holds"),
        ({"strategies__one_shot__temperature": 1e300}, "that float32 holds"),
        ({"seed": 2**31}, "less than 2147483648"),
        ({"loop__chunk_steps": 2**31}, "less than 2147483648"),
        ({"task__dimension": 2**31 - 1}, "at most 1048576"),
        ({"teacher__widths": (2**31 - 1,)}, "memory of .* GB or more for teacher; found"),
        ({"student__widths": (2**31 - 1,)}, "memory of .* GB or more for student; found"),
        ({"sizes__panels__width__20__widths": (2**31 - 1,)}, "memory of .* GB or more for sizes.width/20; found"),
        ({"student_training__batch_size": 2**31 - 1}, "memory of .* GB or more for student; found"),
        ({"evaluation__batch_size": 2**31 - 1}, "memory of .* GB or more for teacher; found"),
        ({"strategies__progressive__selection__count": 2**31 - 1}, "at most the 16 checkpoints that there are"),
        ({"strategies__progressive__duration": 8_192}, "reaches its second checkpoint within 8192 steps"),
        ({"teacher_training__trajectory": "x" * 300}, "a path whose parts are at most 255 bytes"),
        ({"teacher_training__trajectory": "a\0b"}, "a path whose parts are at most 255 bytes"),
        ({"name": "../../evil"}, r"a name of files: .*; found '\.\.'; rename it"),
        ({"name": ""}, "a name of files"),
    ],
    ids=str,
)
def test_classes_of_nonsense(changes, words):
    with pytest.raises(UserError, match=words) as caught:
        read(config_of("parity_mlp", **changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["../../evil", "a/b", "a\\b", "", " a", ".hidden", "~", "x" * 101, "a\nb", "a\0b"])
def test_names_that_are_no_names_of_files(name):
    strategy = read(config_of("parity_mlp")).strategy("labels")
    with pytest.raises(ValueError, match="a name of files: 1 to 100 characters"):
        type(strategy)(name=name)


@pytest.mark.parametrize("name", ["parity_mlp", "pcfg"])
def test_any_field_may_be_any_value_without_a_traceback(name, request):
    """Of all fields and values a hundred; with --trust every one."""
    fields = [leaf.path.removeprefix("config.").replace(".", "__") for leaf in leaves(read(config_of(name)))]
    points = [(field, value) for field in fields for value in (*NUMBERS, *OTHERS)]
    if not request.config.getoption("--trust"):
        points = random.Random(0).sample(points, 100)
    complaints = []
    for field, value in points:
        config = config_of(name, **{field: value})
        if config is not None:
            try:
                read(config)
            except UserError as error:
                complaints.append(str(error))
    assert len(complaints) > 10
    assert not [complaint for complaint in complaints if "\n" in complaint]
