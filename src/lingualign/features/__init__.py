"""What the touched matrices see: hooks, token positions, second moments, a cache on disk."""
