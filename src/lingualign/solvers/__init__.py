"""Linear algebra of the closed-form edit. Pure torch; imports nothing of lingualign but its errors."""
