"""Probes: pure functions of parameters and fresh inputs, evaluated on every checkpoint of a trajectory."""
