"""Intervals, ranks, controls and summaries: pure functions of arrays and tables."""
