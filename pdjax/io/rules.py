"""The rules that choose checkpoints and decide claims: what they were set on, and whether they have changed.

A verdict is worth what its rules are: those that were set after its own seeds were seen fit them by construction, and
only seeds that nobody had looked at decide. So an experiment records the digests of its rules when it begins, and its
page says on which seeds each was set, and whether they have changed since.
"""

import hashlib
from pathlib import Path
from typing import Literal, NamedTuple

Part = Literal["selection", "tuning", "decisions"]
"""What rules there are: which checkpoints, which learning rate, T and κ, and which verdict."""

SOURCES: dict[Part, tuple[str, ...]] = {
    "selection": (
        "distill/phases.py",
        "distill/selection.py",
        "distill/adaptive.py",
        "stages/selection.py",
        "stages/run.py",
    ),
    "tuning": ("stages/tuning.py",),
    "decisions": (
        "report/claims/*.py",
        *(f"report/{name}.py" for name in ("groups", "results", "searches", "stats", "variants")),
        *("distill/strategy.py", "tasks/parity.py"),  # which strategies are progressive, and when a task is learned
    ),
}
"""Where they are written down, below the package."""


class Origin(NamedTuple):
    """Where a rule comes from."""

    rule: str
    set_on: str
    seen: str = ""  # which seeds that are reported had been seen before; none: it was fixed before all of them


ORIGINS = (
    Origin("phases of the loss: PLATEAU, DROP", "the first teachers (seed 0) of text.py, pcfg.py and pcfg_gpt.py", "0"),
    Origin(
        "transition of the accuracy: UNRISEN, RISEN",
        "the seeds 100 to 104 of parity_mlp.py",
        "0 to 4, on which another bound had failed",
    ),
    Origin("peak of M_robust: FALLEN, SHORT", "the paper’s figure 4 and the seeds 0 to 2 of pcfg.py", "0 to 2"),
    Origin("smallest effects: 0.02 of accuracy, a tenth of the steps", "nothing: fixed before any study"),
    Origin("tuning: grids, the highest mean accuracy", "nothing: fixed before any tuning"),
    Origin("corrections for many cases (Holm), effects too small to matter", "simulations alone", "0 to 4"),
    Origin(
        "parities by counts of who learns sooner",
        "parts of two studies of parity_mlp.py that were given up uncompared (200 to 202, 300 to 302)",
        "0 to 4",
    ),
    Origin(
        "parities: a teacher whose students differ both ways is not alike",
        "a reviewer’s counterexample",
        "0 to 4, and 400 to 408, where it changes no verdict",
    ),
    Origin("R1 and R2: where the transition starts, and that all of its three points count", "the paper", "0 to 4"),
    Origin("R4, auto and H by intervals instead of means", "simulations alone", "0 to 2 (pcfg.py), 0 to 4"),
    Origin(
        "kappa, gap, argmax, soft, early, attention, spikes",
        "the paper’s captions",
        "0 to 9, 100 to 104, and 400 to 408 of parity_mlp.py",
    ),
    Origin("H: a checkpoint at the transition’s start or end is outside", "figure 18’s caption", "0 to 4"),
    Origin(
        "R7: a loss is no gap that shrinks",
        "the claim “gap”, which had it so",
        "0 to 8 of pcfg_gpt.py; its study’s had not been",
    ),
    Origin("R5: one case for each measure, not all together", "the seeds 0 to 2 of pcfg.py and pcfg_gpt.py", "0 to 2"),
)
"""On which seeds each rule was set, and which reported ones had been seen by then: of those it decides nothing anew."""


def digests() -> dict[Part, str]:
    """Returns what tells versions of the rules apart: SHA-256 of where they are written, its first 16 digits."""
    return {part: _digest(patterns) for part, patterns in SOURCES.items()}


def changed(before: dict[Part, str]) -> list[Part]:
    """Returns which rules are others than when they were recorded; none where they were not."""
    return [part for part, digest in digests().items() if part in before and before[part] != digest]


def _digest(patterns: tuple[str, ...]) -> str:
    root = Path(__file__).parents[1]
    files = sorted(file for pattern in patterns for file in root.glob(pattern))
    content = hashlib.sha256()
    for file in files:
        content.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes())
    return content.hexdigest()[:16]
