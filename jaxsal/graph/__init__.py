"""Networks of other frameworks as lists of operations that run in JAX."""

from jaxsal.graph.network import Graph as Graph
