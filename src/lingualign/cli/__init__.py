"""The commands. One thin file each; heavy imports happen inside functions, so that --help answers at once."""
