"""The stages of an experiment, one file each; ``pdjax.experiment`` runs them in order."""
