"""How different two images are, one file a kind; pure functions of two images."""
