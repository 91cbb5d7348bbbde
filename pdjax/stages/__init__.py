"""The stages of an experiment, one file each; ``pdjax.experiment`` runs them in order."""

STAGES = ("teacher", "probes", "students", "student_probes", "sizes", "ablations", "report")
"""All of them, in their order."""
