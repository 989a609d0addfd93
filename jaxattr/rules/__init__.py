"""Backward rules."""
