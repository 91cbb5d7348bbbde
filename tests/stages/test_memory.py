"""What cannot be in memory is refused without asking for it."""

import dataclasses

import pytest

from pdjax.errors import UserError
from pdjax.io.signals import Interrupt
from pdjax.io.store import tree_bytes
from pdjax.models.base import parameter_shapes
from pdjax.models.bert import Bert
from pdjax.models.gpt2 import Gpt2
from pdjax.models.gpt_neox import GptNeoX
from pdjax.models.mlp import Mlp
from pdjax.stages import memory
from pdjax.stages.memory import _model_bytes
from pdjax.stages.run import run_experiment
from pdjax.tasks.parity import ParityTask
from pdjax.tasks.pcfg import PcfgTask


@pytest.mark.parametrize(
    ("architecture", "task"),
    [
        (Mlp((8, 4)), ParityTask(6, 2)),
        (Gpt2(3, 2), ParityTask(6, 2)),
        (Bert(3, 2), PcfgTask("cfg3b", 10)),
        (Bert(300, 2, scan_layers=True), PcfgTask("cfg3b", 10)),
        (GptNeoX(5, 2), ParityTask(6, 2)),
    ],
    ids=str,
)
def test_bytes_are_those_of_all_layers(architecture, task):
    assert _model_bytes(architecture, task) == tree_bytes(parameter_shapes(architecture, task))


def test_more_layers_than_are_traced_are_taken_to_be_alike(monkeypatch):
    architecture, task = Gpt2(3, 2), ParityTask(6, 2)
    monkeypatch.setattr(memory, "_TRACED", 2)
    monkeypatch.setattr(memory, "parameter_shapes", lambda of, task: parameter_shapes(shallow(of), task))
    assert _model_bytes(architecture, task) == tree_bytes(parameter_shapes(architecture, task))


def shallow(architecture):
    assert architecture.num_layers <= 2
    return architecture


@pytest.mark.parametrize("model", ["teacher", "student"])
def test_any_number_of_layers_is_refused_without_tracing_them(experiment, model, tmp_path):
    smoke = experiment("pcfg_gpt", "smoke")
    deep = dataclasses.replace(getattr(smoke, model), num_layers=2**31 - 1)
    with pytest.raises(UserError, match=rf"memory of [\d,.]+ GB or more for {model}; found") as caught:
        run_experiment(dataclasses.replace(smoke, **{model: deep}), tmp_path / "work", ("teacher",), Interrupt())
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "work").exists()
