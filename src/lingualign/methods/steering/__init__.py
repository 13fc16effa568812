"""Steering at inference time: rivals of an edit that change no weight. Each `fit` returns a `Steering`."""
