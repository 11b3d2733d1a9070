"""Forward operators, one file each; configs name them by path: `ct.ParallelBeam`."""
