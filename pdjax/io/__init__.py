"""The outside: files and checkpoints, several processes, signals, and what a person sees."""
