"""Section 3.2 and appendices B and C of the paper as functions that can be run."""
