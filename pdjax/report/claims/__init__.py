"""Claims of the paper, and ours, each in a file of its own; ``CLAIMS`` lists them in the order of the report."""

from pdjax.report.claims.ablations import A
from pdjax.report.claims.acceleration import F1
from pdjax.report.claims.adaptive import ADAPTIVE
from pdjax.report.claims.automatic import AUTO
from pdjax.report.claims.causal import C
from pdjax.report.claims.claim import Absent, Case, Claim, Finding, Measurement
from pdjax.report.claims.correlations import R1
from pdjax.report.claims.features import R5
from pdjax.report.claims.hierarchy import H
from pdjax.report.claims.inflection import R4
from pdjax.report.claims.judging import judged
from pdjax.report.claims.language import R7
from pdjax.report.claims.natural import N
from pdjax.report.claims.samples import R3
from pdjax.report.claims.schedules import GAP, KAPPA
from pdjax.report.claims.sizes import R6
from pdjax.report.claims.teachers import ATTENTION, EARLY, SPIKES
from pdjax.report.claims.temperatures import ARGMAX, SOFT
from pdjax.report.claims.transition import R2
from pdjax.report.results import Results

CLAIMS: tuple[Claim, ...] = (
    *(F1, R1, R2, R3, R4, R5, R6, R7, H, N, A, KAPPA, GAP, ARGMAX, SOFT, EARLY, ATTENTION, SPIKES),
    *(AUTO, ADAPTIVE, C),  # ours
)

__all__ = ["CLAIMS", "Absent", "Case", "Claim", "Finding", "Measurement", "evaluate_claims"]


def evaluate_claims(results: Results) -> list[Finding]:
    """Returns what came out of every claim, in the order of ``CLAIMS``."""
    return [_evaluated(claim, results) for claim in CLAIMS]


def _evaluated(claim: Claim, results: Results) -> Finding:
    if results.experiment.tuning is not None:
        return Finding(claim, [], "a tuning decides nothing: what it chose is to be compared on other seeds")
    cases = claim.measure(results)
    return Finding(claim, [], cases.reason) if isinstance(cases, Absent) else Finding(claim, judged(cases), "")
