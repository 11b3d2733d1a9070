"""Networks that name classes (flax.linen only), one file each."""
