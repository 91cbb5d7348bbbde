"""Tasks: distributions of batches, sampled on the device."""
