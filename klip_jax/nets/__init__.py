"""Score networks (flax.linen only), one file each."""
