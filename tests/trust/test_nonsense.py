"""Settings that make no sense are refused in one line when they are read, as classes of values and of fields."""

import dataclasses
import importlib
import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pdjax.configuration import experiment_of, leaves
from pdjax.errors import UserError
from pdjax.stages.run import foresee

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
    foresee(experiment, Path("nowhere"))
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
        ({"loop__writers": ("../../evil",)}, "writers"),
        ({"teacher_training__steps": 2**31 - 512}, "at most 100000 multiples of checkpoint_every"),
        ({"placement__cache": "a/\udcff"}, "a path whose parts"),
        ({"name": "../../evil"}, r"a name of files: .*; found '\.\.'; rename it"),
        ({"name": ""}, "a name of files"),
    ],
    ids=str,
)
def test_classes_of_nonsense(changes, words):
    with pytest.raises(UserError, match=words) as caught:
        read(config_of("parity_mlp", **changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rate", [1e-9, 1e-4])
def test_masks_with_which_batches_count_nothing(rate):
    words = r"in which something counts \(selected positions\); found nothing in (1|0\.\d+) of them"
    with pytest.raises(UserError, match=words):
        read(config_of("pcfg", task__mask_rate=rate))


@pytest.mark.parametrize(
    "name",
    ["../../evil", "a/b", "a\\b", "", " a", ".hidden", "~", "x" * 101, "a\nb", "a\tb", "a\0b", "a\udcff", "é" * 76],
)
def test_names_that_are_no_names_of_files(name):
    strategy = read(config_of("parity_mlp")).strategy("labels")
    with pytest.raises(ValueError, match="a name of files: 1 to 100 characters"):
        dataclasses.replace(strategy, name=name)


@pytest.mark.parametrize("text", ["a\0b", "\x1b[31m", "\uffff", "\udcff"])
@pytest.mark.parametrize("field", ["report__title", "report__question", "comparisons__strategies__figure"])
def test_texts_that_no_page_shows(field, text):
    with pytest.raises(UserError, match="text in UTF-8 without control characters; found"):
        read(config_of("parity_mlp", **{field: text}))


def test_texts_behind_which_something_stands_are_texts_too():
    with pytest.raises(ValueError, match="text in UTF-8 without control characters; found"):
        dataclasses.replace(read(config_of("parity_mlp")), remarks={"\0": "x"})


@pytest.mark.parametrize("name", ["parity_mlp", "pcfg"])
def test_any_field_may_be_any_value_without_a_traceback(name, request):
    """Of all fields and values a hundred, or as many as --trust says."""
    fields = [leaf.path.removeprefix("config.").replace(".", "__") for leaf in leaves(read(config_of(name)))]
    points = [(field, value) for field in fields for value in (*NUMBERS, *OTHERS)]
    count = request.config.getoption("--trust") or 100
    points = random.Random(0).sample(points, min(count, len(points)))
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


SMOKES = ("parity_mlp", "pcfg", "pcfg_gpt", "parity_transformer", "hierarchical")


def changes_of(draw, name, fields):
    """Returns one to four fields of a configuration with values that are odd, or near their own."""
    config, changes = config_of(name), {}
    for field in draw.sample(fields, draw.randint(1, 4)):
        value = config
        for part in field.split("__"):
            value = value[part]
        near = [value]
        if isinstance(value, int | float) and not isinstance(value, bool):
            near = [2 * value, value // 2, value + 1, -value, float(value), int(value)]
        elif isinstance(value, tuple):
            near = [value[:1], value[::-1], (*value, *value), ()]
        changes[field] = draw.choice(near if draw.random() < 0.6 else [*NUMBERS, *OTHERS])
    return changes


def generated(count):
    """Yields configurations with changes that are accepted or refused, as the command line would find."""
    draw, fields = random.Random(7), {}
    for _ in range(count):
        name = draw.choice(SMOKES)
        if name not in fields:
            found = leaves(read(config_of(name)))
            fields[name] = [leaf.path.removeprefix("config.").replace(".", "__") for leaf in found]
        yield name, changes_of(draw, name, fields[name])


def test_generated_configurations_are_read_or_refused_in_a_line(trials, outcomes):
    for name, changes in generated(trials(60)):
        try:
            config = config_of(name, **changes)
            if config is None:
                outcomes("of another type", changes)
                continue
            read(config)
        except UserError as error:
            outcomes("traceback" if "\n" in str(error) else "refused in a line", (name, changes))
        except Exception as error:
            outcomes("traceback", (name, changes, repr(error)))
        else:
            outcomes("accepted", (name, changes))


def test_accepted_configurations_run_a_step(root, request, outcomes, tmp_path):
    """One in twenty of so many as --trust says; each is stopped when the teacher's first records are there."""
    count = request.config.getoption("--trust") // 20
    if not count:
        pytest.skip("of the long form (--trust)")
    started = 0
    for name, changes in generated(20 * count):
        if started == count:
            break
        try:
            config = config_of(name, **changes)
            if config is None:
                continue
            read(config)
        except UserError:
            continue
        started += 1
        flags = [f"--config.{path.replace('__', '.')}={value}" for path, value in changes.items()]
        outcomes(run_a_step(root, tmp_path / str(started), name, flags), (name, changes))


def run_a_step(root, workdir, name, flags):
    command = [sys.executable, "-m", "pdjax.main", f"--config=configs/{name}.py:smoke", f"--workdir={workdir}", *flags]
    said = workdir.with_suffix(".log")
    with open(said, "w") as file:
        process = subprocess.Popen(command, cwd=root, env=os.environ | {"PYTHONPATH": str(root)}, stderr=file)
        deadline = time.monotonic() + 90
        while process.poll() is None and time.monotonic() < deadline:
            records = workdir / "teacher" / "metrics.jsonl"
            if records.exists() and records.stat().st_size:
                process.send_signal(signal.SIGTERM)
                break
            time.sleep(0.2)
        try:
            process.wait(max(deadline - time.monotonic(), 1))
        except subprocess.TimeoutExpired:  # a large model, or a chunk of many steps
            process.kill()
            process.wait()
            return "slow, and stopped"
    text = said.read_text()
    if "Traceback (most recent call last)" in text or process.returncode in (-6, -11):
        return "traceback"
    known = {0: "ran", 143: "ran", -15: "ran", 1: "failed in a line", 2: "refused in a line"}
    return known.get(process.returncode, "hang")
