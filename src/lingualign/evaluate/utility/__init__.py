"""What an edit costs beside safety: benchmark accuracy, perplexity, drift from the base model, diversity, language."""
