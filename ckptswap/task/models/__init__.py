"""Models: one file a source, found by name through the registry; `build` makes one, `named` asks a file."""
