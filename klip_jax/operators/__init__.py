"""Forward operators, one file each; a config names them by path, e.g. `ct.ParallelBeam`."""
