"""Prompts: the schema, the built-in set, loaders of files and public benchmarks, splits."""
