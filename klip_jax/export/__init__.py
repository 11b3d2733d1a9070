"""Maps of a finished run in the terms of what was put in; one file, one format."""
