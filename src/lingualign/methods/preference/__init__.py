"""Training on preference pairs: MPO, DPO and SFT, the rivals that learn by gradient. Each returns an `Edit`, so that
all methods are verified the same way."""
