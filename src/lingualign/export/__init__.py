"""Ships an edit: baked into a checkpoint's own files, or as a LoRA adapter."""
