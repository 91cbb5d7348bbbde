"""The stages of an experiment, one file each, in order; each is resumable and skipped when it is done."""

STAGES = ("teacher", "probes", "students", "student_probes", "sizes", "teachers", "ablations", "report")
"""All of them, in their order."""
