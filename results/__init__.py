"""Keeps and judges: the store, its schema, the statistics, the gate and the fronts."""
