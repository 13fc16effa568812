"""Measuring: replies, judges, statistics, metrics."""
