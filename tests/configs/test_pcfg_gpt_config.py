import pytest

from pdjax.distill.losses import Distillation, Labels
from pdjax.distill.schedules import TeacherSplit
from pdjax.distill.selection import Equal
from pdjax.models.gpt2 import Gpt2
from pdjax.tasks.pcfg import PcfgLanguageTask
from pdjax.train.optimizer import Adam

STUDIED = ("tune", "study", "smoke-tune", "smoke-study", "paper-tune", "paper-study")
VARIANTS = ("", "smoke", "paper", "seeds", "ablations")


@pytest.mark.parametrize("variant", [*VARIANTS, *STUDIED])
def test_every_variant_is_locked_valid_and_has_its_own_name(check_variant, variant):
    check_variant("pcfg_gpt", variant)


@pytest.mark.parametrize("variant", [*VARIANTS, *STUDIED])
def test_foreseen_runs_are_those_that_there_are(check_foreseen_runs, variant):
    check_foreseen_runs("pcfg_gpt", variant)


def test_paper_has_the_papers_sizes(experiment):
    """Appendix E, and section D.6 where it is silent."""
    paper = experiment("pcfg_gpt", "paper")
    assert isinstance(paper.task, PcfgLanguageTask)
    assert (paper.task.grammar, paper.task.root, paper.task.level) == ("cfg3f", None, 3)
    assert (paper.teacher.num_heads, paper.student.num_heads) == (32, 8)
    assert (paper.teacher.model_width, paper.student.model_width) == (256, 64)
    for model in (paper.teacher, paper.student):
        assert isinstance(model, Gpt2)
        assert (model.num_layers, model.dimensions_per_head, model.feed_forward_multiple) == (4, 8, 4)
        assert model.heads == "concatenate"
        assert model.dropout == 0.0
    teaching, training = paper.teacher_training, paper.student_training
    assert (teaching.steps, training.budgets) == (8000, (2000, 4000, 8000, 16000))
    assert teaching.batch_size == training.batch_size == 512
    for optimizer in (teaching.optimizer, training.optimizer):
        assert optimizer == Adam("cosine", 0.06, clip_norm=1.0, beta1=0.9, beta2=0.95, epsilon=1e-8)
    assert paper.evaluation.num_batches * paper.evaluation.batch_size == 4096
    assert {s.loss for s in paper.strategies} == {Labels(), Distillation(1e-4), Distillation(1.0)}


@pytest.mark.parametrize("variant", VARIANTS)
def test_checkpoints_lie_at_twentieths_and_share_half_of_the_teachers_length(experiment, variant):
    config = experiment("pcfg_gpt", variant)
    progressive = config.strategy("progressive")
    assert config.teacher_training.checkpoint_every == config.teacher_training.steps / 20
    assert (progressive.selection, progressive.schedule) == (Equal(20), TeacherSplit(0.5))


@pytest.mark.parametrize("variant", [*VARIANTS, *STUDIED])
def test_the_whole_chunk_traces_at_the_variants_sizes(experiment, trace_chunks, variant):
    trace_chunks(experiment("pcfg_gpt", variant))


def test_unknown_variant_says_what_there_is(load_config_file):
    with pytest.raises(ValueError, match=r"configs/pcfg_gpt\.py with one of .*smoke.*huge"):
        load_config_file("pcfg_gpt").get_config("huge")
