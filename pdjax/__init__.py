"""Progressive distillation in JAX: students that learn from their teacher's intermediate checkpoints."""
