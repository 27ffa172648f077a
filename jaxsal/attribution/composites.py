"""Which rule goes where: composites map sites to rules.

A composite is any function ``site -> rule``; :class:`Rules` is one that is written down as a table. Your own::

    def mine(site):
        return rules.flat() if site.name == "conv1" else composites.epsilon_plus()(site)

A uniform composite (``z``, ``epsilon``, ``gamma``, ...) puts its rule on every convolution and dense site. In all of
them averages and residual sums share relevance in proportion, max-pools give it to the first maximum, activations pass
it on, statistics of normalisation and gates are held constant.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax

from jaxsal.attribution import rules
from jaxsal.attribution.rules import Bound
from jaxsal.attribution.surveying import last_weights
from jaxsal.engine.sites import Composite, Rule, Site
from jaxsal.model import Model

_AVERAGE, _SUM = rules.proportional(), rules.in_proportion()


@dataclass(frozen=True)
class Rules:
    """A composite as a table of rules, one for each kind of site.

    Attributes:
        convolution: of convolutions.
        dense: of all other products with weights.
        first: of convolutions and dense sites that the image reaches first; None for none of their own.
        affine: of scales and shifts on their own, such as BatchNorm before a convolution.
        average: of means and pools by average.
        sum: of residual sums.
        activation: of ReLUs and every other element-wise function.
        rectifier: of ReLUs alone (also ReLU6); None where they are like the others.
        pool: of max-pools.
        product: of products of two values that depend on the image.
        statistic: of statistics that normalise.

    Example:
        >>> mine = Rules(convolution=rules.gamma(0.1), dense=rules.epsilon(1e-3), first=rules.flat())
    """

    convolution: Rule
    dense: Rule
    first: Rule | None = None
    affine: Rule = rules.pass_on
    average: Rule = _AVERAGE
    sum: Rule = _SUM
    activation: Rule = rules.handed_on
    rectifier: Rule | None = None
    pool: Rule = rules.winner
    product: Rule = rules.halved
    statistic: Rule = rules.held

    def __call__(self, site: Site) -> Rule:
        """The rule for a site."""
        if site.first and self.first is not None and site.weighted:
            return self.first
        if site.kind == "activation" and self.rectifier is not None and site.operation in ("relu", "relu6"):
            return self.rectifier
        return getattr(self, site.kind)


@dataclass(frozen=True)
class Named:
    """A composite with other rules at linear sites of certain names.

    Attributes:
        rules: pairs of a layer's name and its rule.
        otherwise: the composite for all other sites.
    """

    rules: tuple[tuple[str, Rule], ...]
    otherwise: Composite

    def __call__(self, site: Site) -> Rule:
        """The rule for a site."""
        return (dict(self.rules).get(site.name) if site.linear else None) or self.otherwise(site)


def named(rules: Mapping[str, Rule], otherwise: Composite) -> Composite:
    """Other rules at layers of certain names; :func:`jaxsal.sites` prints the names.

    :func:`jaxsal.lrp` and :func:`jaxsal.conservation` refuse a name that no layer has.

    Args:
        rules: by the layer's name, for its linear sites.
        otherwise: for all other sites.

    Example:
        >>> from jaxsal.attribution import rules
        >>> composite = named({"conv1": rules.flat()}, epsilon_plus())
    """
    return Named(tuple(rules.items()), otherwise)


def uniform(rule: Rule, **others: Any) -> Rules:
    """One rule for every convolution and dense site.

    Args:
        rule: for linear sites.
        **others: rules for other kinds of sites, see :class:`Rules`.
    """
    return Rules(rule, rule, **others)


def epsilon(eps: float = 1e-6, bias: bool = True) -> Rules:
    """LRP-epsilon everywhere; ``eps`` of 0 and with bias it is input x gradient for networks of ReLUs.

    Args:
        eps: see :func:`jaxsal.attribution.rules.epsilon`.
        bias: whether biases count, those of BatchNorm included.
    """
    return _proportional(rules.epsilon(eps, bias), bias)


def z(bias: bool = True) -> Rules:
    """LRP-0 everywhere.

    Args:
        bias: whether biases count, those of BatchNorm included.
    """
    return _proportional(rules.z(bias=bias), bias)


def _proportional(rule: Rule, bias: bool) -> Rules:
    # where biases count, so do shifts that stand on their own or behind an average
    return uniform(rule, affine=rule if bias else rules.pass_on, average=rules.epsilon(bias=bias))


def z_plus(bias: bool = True) -> Rules:
    """LRP-z+ everywhere.

    Args:
        bias: whether the positive part of biases counts.
    """
    return uniform(rules.z_plus(bias))


def w_square(bias: bool = False) -> Rules:
    """LRP-w^2 everywhere.

    Args:
        bias: see :func:`jaxsal.attribution.rules.w_square`.
    """
    return uniform(rules.w_square(bias))


def flat() -> Rules:
    """LRP-flat everywhere."""
    return uniform(rules.flat())


def gamma(g: float = 0.25) -> Rules:
    """LRP-gamma everywhere.

    Args:
        g: see :func:`jaxsal.attribution.rules.gamma`.
    """
    return uniform(rules.gamma(g))


def alpha_beta(alpha: float = 2.0, beta: float = 1.0, bias: bool = True) -> Rules:
    """LRP-alpha-beta everywhere.

    Args:
        alpha: see :func:`jaxsal.attribution.rules.alpha_beta`.
        beta: ``alpha - 1``.
        bias: whether biases count.
    """
    return uniform(rules.alpha_beta(alpha, beta, bias))


def epsilon_plus(eps: float = 1e-6) -> Rules:
    """LRP-z+ for convolutions, LRP-epsilon for dense layers.

    Args:
        eps: of the dense layers.
    """
    return Rules(rules.z_plus(), rules.epsilon(eps))


def epsilon_plus_flat(eps: float = 1e-6) -> Rules:
    """As :func:`epsilon_plus`, with LRP-flat where the image comes in.

    Args:
        eps: of the dense layers.
    """
    return replace(epsilon_plus(eps), first=rules.flat())


def epsilon_alpha2_beta1(eps: float = 1e-6) -> Rules:
    """LRP-alpha-beta (2, 1) for convolutions, LRP-epsilon for dense layers.

    Args:
        eps: of the dense layers.
    """
    return Rules(rules.alpha_beta(2.0, 1.0), rules.epsilon(eps))


def epsilon_alpha2_beta1_flat(eps: float = 1e-6) -> Rules:
    """As :func:`epsilon_alpha2_beta1`, with LRP-flat where the image comes in.

    Args:
        eps: of the dense layers.
    """
    return replace(epsilon_alpha2_beta1(eps), first=rules.flat())


def epsilon_gamma_box(low: Bound, high: Bound, eps: float = 1e-6, g: float = 0.25) -> Rules:
    """LRP-gamma for convolutions, LRP-epsilon for dense layers, LRP-z^B where the image comes in.

    Args:
        low: least value of the image, or one for each channel.
        high: greatest value.
        eps: of the dense layers.
        g: of the convolutions.
    """
    return Rules(rules.gamma(g), rules.epsilon(eps), first=rules.z_box(low, high))


def preset_a() -> Rules:
    """Preset A of iNNvestigate: LRP-alpha-beta (1, 0) for convolutions, LRP-epsilon (0.1) for dense layers."""
    return Rules(rules.alpha_beta(1.0, 0.0), rules.epsilon(0.1))


def preset_b() -> Rules:
    """Preset B of iNNvestigate: LRP-alpha-beta (2, 1) for convolutions, LRP-epsilon (0.1) for dense layers."""
    return Rules(rules.alpha_beta(2.0, 1.0), rules.epsilon(0.1))


def preset_a_flat() -> Rules:
    """:func:`preset_a` with LRP-flat where the image comes in."""
    return replace(preset_a(), first=rules.flat())


def preset_b_flat() -> Rules:
    """:func:`preset_b` with LRP-flat where the image comes in."""
    return replace(preset_b(), first=rules.flat())


def excitation_backprop(bias: bool = False) -> Rules:
    """LRP-z+ everywhere, which for activations above 0 are the probabilities of excitation backprop.

    Args:
        bias: whether the positive part of biases counts; not so in the paper.
    """
    return z_plus(bias)


@dataclass(frozen=True)
class Indexed:
    """A composite with another rule at some sites.

    Attributes:
        indices: of the sites.
        rule: for them.
        otherwise: the composite for all other sites.
    """

    indices: frozenset[int]
    rule: Rule
    otherwise: Composite

    def __call__(self, site: Site) -> Rule:
        """The rule for a site."""
        return self.rule if site.index in self.indices else self.otherwise(site)


def contrastive(model: Model, x: jax.Array) -> Composite:
    """Excitation backprop, contrasted at the network's last weights.

    They are those of every convolution and dense site from which a way leads to the output that passes no other one:
    of two heads whose outputs are added both.

    Args:
        model: callable pytree ``x[b, *space, c] -> y[b, k]``.
        x: ``[b, *space, c]``, or its shape.

    Raises:
        ValueError: if the network has no weights.
    """
    base = excitation_backprop()
    last = last_weights(model, x, base)
    if not last:
        raise ValueError("Excitation backprop contrasts at the last weights, and the network has none.")
    return Indexed(last, rules.contrasted(base.dense), base)


_GRADIENT = Rules(**dict.fromkeys(
    ("convolution", "dense", "affine", "average", "sum", "activation", "pool", "product", "statistic"), rules.gradient
))  # fmt: skip


def plain() -> Rules:
    """The gradient itself, with maxima that go to the first place alone."""
    return _GRADIENT


def deconvnet() -> Rules:
    """DeconvNet: ReLUs as :func:`jaxsal.attribution.rules.rectified`, all else differentiated."""
    return replace(_GRADIENT, rectifier=rules.rectified)


def guided_backprop() -> Rules:
    """Guided backprop: ReLUs as :func:`jaxsal.attribution.rules.guided`, all else differentiated."""
    return replace(_GRADIENT, rectifier=rules.guided)


def response(gate: Rule = rules.handed_on, unpool: Rule = rules.winner) -> Rules:
    """Transposed convolutions and un-pooling, with a gate at activations of the user's choice: response maps.

    Args:
        gate: of activations, see :func:`jaxsal.attribution.attentive_response`.
        unpool: of max-pools, see there.
    """
    return replace(_GRADIENT, activation=gate, pool=unpool)


def deep_lift() -> Rules:
    """DeepLIFT, rule rescale, under ``jax.vmap`` over images and references: :func:`jaxsal.attribution.deep_lift`."""
    return replace(_GRADIENT, activation=rules.rescaled, pool=rules.rescaled_maximum)
