"""What an experiment takes on hardware one need not hold: memory, work, hours, disk."""
