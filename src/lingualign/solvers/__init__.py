"""Linear algebra of the closed-form edit, and the dual of constrained alignment. Imports nothing of lingualign but its
errors."""
