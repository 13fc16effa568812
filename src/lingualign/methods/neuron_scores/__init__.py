"""Rules that say which neurons carry safety, one file each, behind one interface (`base.NeuronScore`)."""
