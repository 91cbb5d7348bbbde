"""What ``benchmarks/spellings.py`` tries: one module for each kind of case."""
