"""The three experiments on parities."""

import pytest

from pdjax.distill.losses import Labels
from pdjax.distill.schedules import FixedDuration
from pdjax.models.gpt2 import Gpt2
from pdjax.settings import named, plain
from pdjax.stages.runs import foresee_runs
from pdjax.tasks.parity import HierarchicalTask, ParityTask
from pdjax.train.optimizer import Adam, Sgd

STUDIED = ("tune", "study", "smoke-tune", "smoke-study", "paper-tune", "paper-study")
VARIANTS = {
    "parity_mlp": ("", "smoke", "large", "paper", "wide", "slow", "fast", "paper-wide", "paper-fast", *STUDIED),
    "parity_transformer": ("", "smoke", "paper", "paper-16-heads", *STUDIED),
    "hierarchical": ("", "smoke", "paper", "wide", "paper-wide", *STUDIED),
}
ALL = [(name, variant) for name, variants in VARIANTS.items() for variant in variants]
MLPS = ("parity_mlp", "hierarchical")


@pytest.mark.parametrize(("name", "variant"), ALL)
def test_every_variant_is_locked_valid_and_has_its_own_name(check_variant, name, variant):
    check_variant(name, variant)


@pytest.mark.parametrize(("name", "variant"), ALL)
def test_foreseen_runs_are_those_that_there_are(check_foreseen_runs, name, variant):
    check_foreseen_runs(name, variant)


def test_runs_of_the_default_parity(experiment):
    """Eight for thirteen strategies: the five temperatures of one curriculum are one run of 5 x 5 students."""
    config = experiment("parity_mlp", "")
    runs = foresee_runs(config, config.teacher_training.checkpoints)
    temperatures = ("temperature_0", "temperature_0p01", "temperature_0p1", "temperature_1")
    assert {run.strategies: len(run.replicas) for run in runs} == {
        ("labels",): 5,
        ("one_shot", "one_shot_soft"): 10,
        ("progressive", *temperatures): 25,
        ("adaptive",): 5,
        ("timer",): 5,
        ("start",): 5,
        ("middle",): 5,
        ("end",): 5,
    }


@pytest.mark.parametrize(("name", "variant"), ALL)
def test_all_chunks_trace_at_the_variants_sizes(experiment, trace_chunks, name, variant):
    trace_chunks(experiment(name, variant))


@pytest.mark.parametrize("name", MLPS)
def test_paper_has_the_papers_mlps_and_their_training(experiment, name):
    """Section C.1: 20M steps of SGD with batch 1, 200 checkpoints."""
    paper = experiment(name, "paper")
    assert paper.task.dimension == 100
    assert paper.task.support == "first"
    assert (paper.teacher.widths, paper.student.widths) == ((50_000,), (100,))
    teaching, training = paper.teacher_training, paper.student_training
    assert teaching.steps == 20_000_000
    assert training.budgets == (20_000_000,)
    assert teaching.batch_size == training.batch_size == 1
    assert teaching.learning_rate == 5e-3
    assert training.learning_rates == (5e-3,)
    assert teaching.checkpoint_every == 100_000
    assert len(training.seeds) == 3
    for optimizer in (teaching.optimizer, training.optimizer):
        assert optimizer == Sgd(schedule="constant", warmup_fraction=0.0, clip_norm=None)
    assert paper.strategy("progressive").selection.count == 200
    assert paper.strategy("progressive").schedule.duration == 100_000
    assert_evaluates_and_distils_like_the_paper(paper)


def assert_evaluates_and_distils_like_the_paper(paper):
    assert paper.evaluation.num_batches * paper.evaluation.batch_size == 4096
    assert paper.probes["monomials"].num_inputs >= 100_000
    assert paper.probes["monomials"].off_support == 100
    temperatures = {s.loss.temperature for s in paper.strategies if s.loss != Labels()}
    assert temperatures == {1e-4, 1.0, 1e-1, 1e-2, 0.0}
    assert {paper.strategy(name).loss.temperature for name in ("progressive", "one_shot")} == {1e-4}


def test_paper_has_the_papers_parity(experiment):
    for name in ("parity_mlp", "parity_transformer"):
        paper = experiment(name, "paper")
        assert paper.task == ParityTask(100, 6, support="first")
        assert paper.probes["monomials"].max_degree == 5


def test_paper_has_the_papers_hierarchy(experiment):
    """Section C.3: 8 classes, 7 features of 5 coordinates."""
    task = experiment("hierarchical", "paper").task
    assert isinstance(task, HierarchicalTask)
    assert (task.depth, task.degree) == (3, 5)


def test_paper_has_the_papers_transformers_and_their_training(experiment):
    """Sections C.2 and E."""
    paper = experiment("parity_transformer", "paper")
    assert (paper.teacher.num_heads, paper.student.num_heads) == (32, 4)
    assert (paper.teacher.model_width, paper.student.model_width) == (256, 32)
    for model in (paper.teacher, paper.student):
        assert isinstance(model, Gpt2)
        assert (model.num_layers, model.dimensions_per_head, model.feed_forward_multiple) == (2, 8, 4)
        assert model.heads == "concatenate"
        assert not model.tied_head
        assert model.dropout == 0.0
    teaching, training = paper.teacher_training, paper.student_training
    assert (teaching.steps, training.budgets, teaching.checkpoint_every) == (250_000, (250_000,), 10_000)
    assert teaching.batch_size == training.batch_size == 32
    assert (teaching.learning_rate, training.learning_rates) == (3e-4, (1e-4,))
    for optimizer in (teaching.optimizer, training.optimizer):
        assert isinstance(optimizer, Adam)
        assert (optimizer.schedule, optimizer.warmup_fraction) == ("cosine", 0.06)
        assert (optimizer.beta1, optimizer.beta2) == (0.9, 0.999)
    assert paper.probes["attention"].num_inputs == 1024
    assert paper.strategy("progressive").selection.count == 25
    assert_evaluates_and_distils_like_the_paper(paper)


def test_the_transformers_panels_vary_the_heads_in_the_papers_three_ways(experiment):
    """Figure 10: 8 dimensions a head, one hidden width, averaged heads as wide as the model."""
    panels = {panel.name: named(panel.models) for panel in experiment("parity_transformer", "paper").sizes.panels}
    assert set(panels) == {"8 dimensions a head", "width 256", "averaged heads of 256"}
    for models in panels.values():
        assert {label: sized.model.num_heads for label, sized in models.items()} == {"4": 4, "8": 8, "16": 16, "32": 32}
    narrow, fixed, averaged = (
        [sized.model for sized in panels[name].values()]
        for name in ("8 dimensions a head", "width 256", "averaged heads of 256")
    )
    assert {model.dimensions_per_head for model in narrow} == {8}
    assert {model.model_width for model in narrow} == {32, 64, 128, 256}
    assert {model.model_width for model in fixed} == {256}
    assert {model.heads for model in (*narrow, *fixed)} == {"concatenate"}
    assert {(model.heads, model.head_dim, model.width) for model in averaged} == {("average", 256, 256)}


def test_the_mlps_panel_reaches_from_the_student_to_the_teacher(experiment):
    """Figure 7 (left)."""
    paper = experiment("parity_mlp", "paper")
    (panel,) = paper.sizes.panels
    widths = {int(sized.name): sized.model.widths for sized in panel.models}
    assert all(model == (width,) for width, model in widths.items())
    assert (min(widths), max(widths)) == (100, 50_000)
    assert experiment("hierarchical", "paper").sizes is None


@pytest.mark.parametrize("base", ["", "paper"])
@pytest.mark.parametrize("name", MLPS)
def test_wide_has_a_student_ten_times_as_wide_and_changes_nothing_else(experiment, name, base):
    default, wide = experiment(name, base), experiment(name, f"{base}-wide".removeprefix("-"))
    assert wide.student.widths[0] == 10 * default.student.widths[0]
    assert differences(default, wide) == {"name", "student"}


@pytest.mark.parametrize(
    ("base", "change", "rate", "length"), [("", "slow", 0.5, 2), ("", "fast", 2, 1), ("paper", "fast", 2, 1)]
)
def test_slow_and_fast_change_every_learning_rate_and_slow_the_lengths(experiment, base, change, rate, length):
    default, other = experiment("parity_mlp", base), experiment("parity_mlp", f"{base}-{change}".removeprefix("-"))
    teaching = [config.teacher_training for config in (default, other)]
    assert teaching[1].learning_rate == rate * teaching[0].learning_rate
    assert (teaching[1].steps, teaching[1].checkpoint_every) == (
        length * teaching[0].steps,
        length * teaching[0].checkpoint_every,
    )
    for part in ("student_training", "sizes"):
        rates = [getattr(config, part).learning_rates for config in (default, other)]
        assert rates[1] == tuple(rate * r for r in rates[0])
    durations = [
        [s.schedule.duration for s in config.strategies if isinstance(s.schedule, FixedDuration)]
        for config in (default, other)
    ]
    # T is 0.1M steps in figure 9, and 1M in figure 2; the teacher's pace and the timer are what they were.
    one = default.strategy("middle").schedule.duration
    assert durations[1] == [length * d // (10 if (base, d) == ("paper", one) else 1) for d in durations[0]]
    longer = {"strategies", "evaluation", "loop"} if length > 1 else {"strategies"} if base == "paper" else set()
    assert differences(default, other) == {"name", "teacher_training", "student_training", "sizes"} | longer


def differences(one, other):
    one, other = plain(one), plain(other)
    return {key for key in one if one[key] != other[key]}


@pytest.mark.parametrize("name", VARIANTS)
def test_unknown_variant_says_what_there_is(load_config_file, name):
    for variant in ("huge", "paper-huge", "wide-paper"):
        with pytest.raises(ValueError, match=rf"configs/{name}\.py with one of .*'paper', .*'smoke'.*{variant}"):
            load_config_file(name).get_config(variant)
