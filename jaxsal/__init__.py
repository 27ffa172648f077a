"""jaxsal."""
