"""`klip`: the command line without a config file; the same settings, the same runs."""
