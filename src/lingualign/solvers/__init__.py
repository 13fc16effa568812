"""Linear algebra of the closed-form edit, and the dual of constrained alignment. Torch and scipy; imports nothing of lingualign but its errors."""
