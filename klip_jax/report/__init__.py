"""What a run found: metrics, figures and one page, made from its store at any time."""
