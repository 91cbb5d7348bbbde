"""Models: settings, and the pure ``init`` and ``apply`` functions that they build; parameters live outside."""
