"""What Keras's layers compute, in JAX."""
