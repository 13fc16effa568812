"""Results for other programs, and other programs' results: Parquet, Inspect logs, readers of harnesses' files."""
