"""How probes are run over checkpoints: what was measured stays, whoever is stopped."""

import json
import signal
from types import SimpleNamespace

import numpy as np
import pytest

from pdjax.io.progress import Progress
from pdjax.io.signals import Interrupt, Interrupted
from pdjax.probes.agreement import AgreementProbe
from pdjax.stages import probing
from pdjax.stages.probes import _identities
from pdjax.stages.probing import KEPT, finish, measure_checkpoints

STEPS = (0, 10, 20, 30, 40)
NAMES = [{"replica": 0}, {"replica": 1}]


class Measuring:
    """Two probes of two models at five checkpoints, measured two checkpoints at a time; counts its work."""

    def __init__(self, directory, identity="one"):
        self.directory, self.identity = directory, identity
        self.loaded, self.measured = [], []

    def load(self, step):
        self.loaded.append(step)
        return {"w": np.array([step + 0.1, step + 0.7], np.float32)}

    def probe(self, name, factor):
        def measure(params):
            self.measured.append(name)
            return [{"value": factor * w} for w in params["w"].tolist()]

        return measure

    def run(self, interrupt):
        progress = Progress("probes", len(STEPS))
        probes = {"thirds": self.probe("thirds", 1 / 3), "sevenths": self.probe("sevenths", 1 / 7)}
        measure_checkpoints(self.directory, self.identity, probes, STEPS, self.load, NAMES, 4, interrupt, progress)
        finish(self.directory, dict.fromkeys(probes, self.identity), {})
        assert progress._done == len(STEPS)
        return self


def files(directory):
    return {path.name: path.read_text() for path in directory.iterdir()}


@pytest.fixture
def reference(tmp_path):
    """An undisturbed measurement."""
    return Measuring(tmp_path / "whole").run(Interrupt())


def test_every_checkpoint_and_model_has_a_line(reference):
    assert reference.loaded == list(STEPS)
    assert reference.measured == ["thirds", "sevenths"] * 3
    assert set(files(reference.directory)) == {"thirds.jsonl", "sevenths.jsonl", "result.json"}
    lines = [json.loads(line) for line in files(reference.directory)["thirds.jsonl"].splitlines()]
    assert [(line["step"], line["replica"]) for line in lines] == [(s, r) for s in STEPS for r in (0, 1)]
    assert [line["value"] for line in lines[:2]] == [np.float32(0.1).item() / 3, np.float32(0.7).item() / 3]


@pytest.mark.parametrize("looks", range(1, 7))
def test_who_is_stopped_goes_on_from_there_with_equal_results(interrupt_at, reference, tmp_path, looks):
    stopped = Measuring(tmp_path / "parts")
    with pytest.raises(Interrupted, match=f"SIGTERM: {looks} of 6 measurements are kept"):
        stopped.run(interrupt_at(looks))
    assert set(files(stopped.directory)) == {KEPT}
    again = Measuring(stopped.directory).run(Interrupt())
    assert len(stopped.measured) == looks
    assert stopped.measured + again.measured == reference.measured
    assert again.loaded == list(STEPS[2 * (looks // 2) :])  # of the groups in which something was left to measure
    assert files(again.directory) == files(reference.directory)


def test_half_a_line_of_a_killed_process_is_measured_again(interrupt_at, reference, tmp_path):
    stopped = Measuring(tmp_path / "parts")
    with pytest.raises(Interrupted):
        stopped.run(interrupt_at(3))
    path = stopped.directory / KEPT
    path.write_text(path.read_text()[:-9])
    again = Measuring(stopped.directory).run(Interrupt())
    assert len(again.measured) == 6 - 2
    assert files(again.directory) == files(reference.directory)


def test_what_was_kept_of_other_models_is_measured_anew(interrupt_at, reference, tmp_path):
    stopped = Measuring(tmp_path / "parts", identity="another")
    with pytest.raises(Interrupted):
        stopped.run(interrupt_at(3))
    again = Measuring(stopped.directory).run(Interrupt())
    assert again.measured == reference.measured
    assert files(again.directory) == files(reference.directory)


def test_processes_stop_together_and_go_on_where_the_first_is(tmp_path, monkeypatch):
    """Here is another process than the first: it holds nothing; and the signal has come to the first alone."""
    said = iter([3, 0, signal.SIGTERM])  # three measurements are kept; no signal yet; then one
    monkeypatch.setattr(probing, "agree", lambda value: next(said))
    monkeypatch.setattr(probing, "is_first", lambda: False)
    other = Measuring(tmp_path / "other")
    with pytest.raises(Interrupted, match="SIGTERM: 5 of 6") as caught:
        other.run(Interrupt())
    assert caught.value.signal_number == signal.SIGTERM
    assert (other.loaded, other.measured) == ([20, 30, 40], ["sevenths", "thirds"])
    assert not other.directory.exists()


def test_a_probe_is_known_by_itself_its_seed_and_the_models(monkeypatch):
    def identity(batches=1, seed=0, **models):
        experiment = SimpleNamespace(probes=SimpleNamespace(seed=seed))
        return _identities(experiment, [AgreementProbe(batches, 16)], models)["agreement"]

    reference = identity(teachers=["a"])
    assert reference == identity(teachers=["a"])
    assert reference != identity(teachers=["b"])
    assert reference != identity(teachers=["a"], seed=1)
    assert reference != identity(2, teachers=["a"])
    monkeypatch.setattr(AgreementProbe, "revision", 1)
    assert reference != identity(teachers=["a"])
