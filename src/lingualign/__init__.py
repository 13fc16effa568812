"""lingualign: make open-weight language models equally safe in every language."""

__version__ = "0.1.0"
