import pytest

from pdjax.distill.losses import Distillation, Labels
from pdjax.distill.selection import Auto, Equal, Final
from pdjax.train.optimizer import Adam

STUDIED = ("tune", "study", "smoke-tune", "smoke-study", "paper-tune", "paper-study")
VARIANTS = ("", "smoke", "short", "paper", "ablations", "paper-ablations", *STUDIED)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_is_locked_valid_and_has_its_own_name(check_variant, variant):
    check_variant("pcfg", variant)


@pytest.mark.parametrize("variant", VARIANTS)
def test_foreseen_runs_are_those_that_there_are(check_foreseen_runs, variant):
    check_foreseen_runs("pcfg", variant)


def test_paper_has_the_papers_sizes(experiment):
    """Sections 4.1, D.5 and D.6."""
    paper = experiment("pcfg", "paper")
    assert (paper.teacher.num_heads, paper.student.num_heads) == (32, 8)
    assert (paper.teacher.model_width, paper.student.model_width) == (256, 64)
    assert paper.teacher.num_layers == paper.student.num_layers == 4
    assert paper.teacher_training.steps == 8000
    assert paper.student_training.budgets == (2000, 4000, 8000, 16000)
    assert paper.teacher_training.batch_size == paper.student_training.batch_size == 512
    assert paper.task.root is None
    assert paper.task.mask_rate == 0.3
    assert not paper.teacher.attend_to_selected
    optimizer = paper.teacher_training.optimizer
    assert optimizer == Adam("cosine", 0.06, clip_norm=1.0, beta1=0.9, beta2=0.95, epsilon=1e-8)
    assert paper.evaluation.num_batches * paper.evaluation.batch_size == 4096
    assert {s.loss for s in paper.strategies} == {Labels(), Distillation(1e-4, 0.0), Distillation(1.0, 0.0)}


@pytest.mark.parametrize("variant", ["ablations", "paper-ablations"])
def test_variants_need_no_plateau_of_a_teacher_of_their_own(experiment, variant):
    """Teachers on other grammars may show none, and a run of hours would end there."""
    variants = experiment("pcfg", variant).variants().values()
    assert len(variants) == (7 if variant == "paper-ablations" else 5)
    assert {s.selection for other in variants for s in other.strategies} == {Final(), Auto(), Equal(8)}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_whole_chunk_traces_at_the_variants_sizes(experiment, trace_chunks, variant):
    trace_chunks(experiment("pcfg", variant))


def test_unknown_variant_says_what_there_is(load_config_file):
    with pytest.raises(ValueError, match=r"smoke.*huge"):
        load_config_file("pcfg").get_config("huge")
