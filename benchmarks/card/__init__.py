"""What ``benchmarks/accelerator.py`` measures: one module for each of its parts."""
