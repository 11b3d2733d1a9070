"""Procedural anatomy and its anomalies, pure JAX; anomalies in real images."""
