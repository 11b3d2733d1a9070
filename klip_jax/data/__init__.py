"""Readers of image sets, npz files and folders; training images changed on the fly."""
