"""Weights of other frameworks brought in as jaxsal networks."""
