"""Re-interpretation of traced networks: platform lowering, geometry, modified backward passes."""

from jaxsal.engine.lower import lower as lower
