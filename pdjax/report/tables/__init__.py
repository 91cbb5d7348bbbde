"""The report's tables as they are written to CSV: recorded values in full precision."""

from collections.abc import Sequence

from pdjax.report.claims import ClaimResult
from pdjax.report.results import Results
from pdjax.report.tables.probes import (
    agreement_table,
    attention_table,
    correlations_table,
    ngrams_table,
    nonterminals_table,
)
from pdjax.report.tables.runs import (
    ablations_table,
    claims_table,
    curricula_table,
    runs_table,
    sizes_table,
    students_table,
    teacher_table,
)
from pdjax.report.tables.table import Table

__all__ = ["Table", "all_tables"]


def all_tables(results: Results, claims: Sequence[ClaimResult]) -> list[Table]:
    """Returns every table of the report; those of sizes, ablations and probes where there are any."""
    where_any = (sizes_table, ablations_table, correlations_table, attention_table)
    where_any += (ngrams_table, nonterminals_table, agreement_table)
    return [
        students_table(results),
        claims_table(claims),
        teacher_table(results),
        curricula_table(results),
        runs_table(results),
        *(table for table in (build(results) for build in where_any) if table.rows),
    ]
