"""Claims of the paper, and ours, and the measurements that decide them.

A claim is a function from the results to one ``ClaimResult`` per case it can be checked in; ``CLAIMS`` lists
them. Another claim is another function in that tuple. A claim about something that an experiment does not have
(no grid of sizes, no probes) gives no case there.
"""

from collections.abc import Callable

from pdjax.report.claims.ablations import progressive_wins_in_other_variants
from pdjax.report.claims.acceleration import progressive_beats_baselines
from pdjax.report.claims.adaptive import adapting_beats_fixed_schedules
from pdjax.report.claims.checkpoints import one_checkpoint_of_the_transition, two_checkpoints_of_a_hierarchy
from pdjax.report.claims.correlations import correlations_peak_in_the_transition
from pdjax.report.claims.features import progressive_students_have_better_features
from pdjax.report.claims.language import next_tokens_show_a_shrinking_gap
from pdjax.report.claims.searches import (
    the_automatic_choice_is_near_the_best,
    the_inflection_is_the_best_first_checkpoint,
)
from pdjax.report.claims.sizes import larger_models_learn_faster
from pdjax.report.claims.statement import ClaimResult, Measurement, Statement
from pdjax.report.results import Results

CLAIMS: tuple[Callable[[Results], list[ClaimResult]], ...] = (
    progressive_beats_baselines,
    correlations_peak_in_the_transition,
    one_checkpoint_of_the_transition,
    the_inflection_is_the_best_first_checkpoint,
    progressive_students_have_better_features,
    larger_models_learn_faster,
    next_tokens_show_a_shrinking_gap,
    two_checkpoints_of_a_hierarchy,
    progressive_wins_in_other_variants,
    the_automatic_choice_is_near_the_best,
    adapting_beats_fixed_schedules,
)

__all__ = ["CLAIMS", "ClaimResult", "Measurement", "Statement", "evaluate_claims"]


def evaluate_claims(results: Results) -> list[ClaimResult]:
    """Returns the verdicts on all claims, in the order of ``CLAIMS``."""
    return [result for claim in CLAIMS for result in claim(results)]
