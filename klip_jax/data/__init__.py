"""Image sets: procedural phantoms (pure JAX) and readers of npz files and folders."""
