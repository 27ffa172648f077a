"""Keras's layers by class."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from jaxsal.graph.keras import layers


def rules() -> dict[str, Callable[..., Any]]:
    """Of each class of layer, the function that computes it."""
    ranks = (1, 2, 3)
    same = (
        "ActivityRegularization", "AlphaDropout", "Dropout", "GaussianDropout", "GaussianNoise", "Identity",
        "RandomBrightness", "RandomContrast", "RandomFlip", "RandomRotation", "RandomTranslation", "RandomZoom",
        "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D",
    )  # fmt: skip
    return {
        **{f"Conv{rank}D": layers.convolution for rank in ranks},
        **{f"Conv{rank}DTranspose": layers.transposed for rank in ranks},
        **{f"DepthwiseConv{rank}D": layers.depthwise for rank in (1, 2)},
        **{f"SeparableConv{rank}D": layers.separable for rank in (1, 2)},
        **{f"MaxPooling{rank}D": layers.max_pool for rank in ranks},
        **{f"AveragePooling{rank}D": layers.avg_pool for rank in ranks},
        **{f"GlobalAveragePooling{rank}D": layers.global_mean for rank in ranks},
        **{f"GlobalMaxPooling{rank}D": layers.global_max for rank in ranks},
        **{f"ZeroPadding{rank}D": layers.pad for rank in ranks},
        **{f"Cropping{rank}D": layers.crop for rank in ranks},
        **{f"UpSampling{rank}D": layers.upsample for rank in ranks},
        **dict.fromkeys(same, lambda x: x),
        "Dense": layers.dense,
        "BatchNormalization": layers.batch_norm,
        "LayerNormalization": layers.layer_norm,
        "Activation": layers.activate,
        "ReLU": layers.relu,
        "LeakyReLU": layers.relu,
        "ELU": layers.activate,
        "Softmax": layers.softmax,
        "Flatten": layers.flatten,
        "Reshape": layers.reshape,
        "Permute": layers.permute,
        "Add": layers.combined(jnp.add),
        "Subtract": layers.combined(jnp.subtract),
        "Multiply": layers.combined(jnp.multiply),
        "Maximum": layers.combined(jnp.maximum),
        "Minimum": layers.combined(jnp.minimum),
        "Average": layers.average,
        "Concatenate": layers.concatenate,
        "Rescaling": layers.rescale,
    }
