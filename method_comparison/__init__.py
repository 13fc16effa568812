"""Methods that close the gap of refusals between languages, compared on the same models, prompts and judges.

    python -m method_comparison.run --dry-run
    python -m method_comparison.page

README.md says what is measured and how a method or a model is added.
"""
