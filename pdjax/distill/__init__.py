"""What a student learns from: checkpoints of a teacher, when each of them, and with which loss."""
