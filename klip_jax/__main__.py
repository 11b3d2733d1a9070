"""`python -m klip_jax` is `klip`."""

from klip_jax.cli.command import script

if __name__ == "__main__":
    script()
