"""Measurements that are too long for tests; each is one command."""
