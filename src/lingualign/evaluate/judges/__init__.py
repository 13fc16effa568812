"""Judges: what tells a refusal from an answer."""
