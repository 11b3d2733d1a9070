"""Readers of image sets, and noise; training images changed on the fly."""
