"""Training: the compiled chunk of steps for all replicas, and the loop that runs it."""
