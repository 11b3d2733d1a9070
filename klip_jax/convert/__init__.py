"""Weights of others -> our parameter trees: {name: array} in, nested dicts out."""
