"""Natural language: corpora of packed token ids, prepared once from files or TFDS data sets and read in any order."""
