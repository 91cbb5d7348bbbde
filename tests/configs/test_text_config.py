"""configs/text.py: its variants, and that the paper's has the paper's sizes."""

import pytest

from pdjax.distill.losses import Distillation, Labels
from pdjax.errors import UserError
from pdjax.train.optimizer import Adam

STUDIED = ("tune", "study", "smoke-tune", "smoke-study", "paper-tune", "paper-study")
VARIANTS = ("", "smoke", "paper", *STUDIED)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_is_locked_valid_and_has_its_own_name(check_variant, variant):
    check_variant("text", variant)


@pytest.mark.parametrize("variant", VARIANTS)
def test_foreseen_runs_are_those_that_there_are(check_foreseen_runs, variant):
    check_foreseen_runs("text", variant)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_whole_chunk_traces_at_the_variants_sizes(experiment, trace_chunks, variant):
    trace_chunks(experiment("text", variant))


def test_paper_has_the_papers_sizes(experiment):
    """Section 4.2 and appendix F."""
    paper = experiment("text", "paper")
    for model, width in ((paper.teacher, 768), (paper.student, 256)):
        assert (model.num_layers, model.dimensions_per_head, model.model_width) == (12, 64, width)
    assert (paper.task.vocabulary, paper.task.num_positions, paper.task.mask_rate) == (30_522, 512, 0.15)
    optimizer = paper.teacher_training.optimizer
    assert optimizer == Adam("cosine", 0.06, clip_norm=1.0, beta1=0.9, beta2=0.95, epsilon=1e-8)
    assert paper.teacher_training.learning_rate == 1e-4
    assert paper.student_training.learning_rates == (1e-4,)
    assert {s.loss for s in paper.strategies} == {Labels(), Distillation(1e-20), Distillation(1.0)}
    assert paper.strategy("progressive").schedule.kappa == 1


@pytest.mark.parametrize("variant", ["", "paper"])
def test_without_a_corpus_nothing_runs(call, tmp_path, monkeypatch, root, variant):
    """And nothing is written."""
    monkeypatch.chdir(tmp_path)
    code, log = call(f"--config={root}/configs/text.py:{variant}", f"--workdir={tmp_path / 'run'}")
    assert code == 2
    assert "expected a prepared corpus in runs/corpora/" in log
    assert "python -m pdjax.text --help" in log
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flag", "what"),
    [("evaluation.num_batches=5000", "evaluation"), ("probes.ngrams.num_sentences=50000", "probes.ngrams")],
)
def test_too_few_held_out_rows_are_said_before_anything_is_written(call, tmp_path, flag, what):
    code, log = call("--config=configs/text.py:smoke", f"--config.{flag}", f"--workdir={tmp_path / 'run'}")
    assert code == 2
    assert "held-out examples, as there are" in log
    assert f"000 for {what}; lower it" in log
    assert not (tmp_path / "run").exists()


def test_the_smoke_corpus_is_prepared_once(load_config_file, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    first, second = (load_config_file("text").smoke_corpus() for _ in range(2))
    assert first == second
    assert first.vocabulary == 400
    next(tmp_path.rglob("topics.jsonl")).write_text('{"text": "Other words."}')
    with pytest.raises(UserError, match=r"topics\.jsonl"):
        load_config_file("text").smoke_corpus()
