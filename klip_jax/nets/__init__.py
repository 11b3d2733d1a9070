"""Score networks (flax.linen only), one file each: `net.apply(params, x, noise_level)`."""
