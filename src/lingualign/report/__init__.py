"""What a person sees: terminal tables, plots and the one-file HTML report."""
