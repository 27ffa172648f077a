"""What PyTorch's operations compute, in JAX, channels last inside."""
