"""Worlds: small generative models of language whose concepts and posteriors are known exactly.

A measure that is to find concepts in a language model is first tried where the concepts are known. `concepts` draws
discrete concepts on a random graph, `tokens` lets them emit context and next token, and `theorem` holds the identity
behind "I Predict Therefore I Am" (Liu et al., arXiv 2503.08980) against them.

    world = TokenWorld.random(ConceptPrior.random(chain(3), rng), rng)
    identity_error(world) < 1e-9
"""

from lrh_ray.analyses.worlds.concepts import ConceptPrior, Graph, chain, random_graph
from lrh_ray.analyses.worlds.theorem import Regime, diversity, identity_error, regime
from lrh_ray.analyses.worlds.tokens import TokenWorld, centred

__all__ = [
    "ConceptPrior",
    "Graph",
    "Regime",
    "TokenWorld",
    "centred",
    "chain",
    "diversity",
    "identity_error",
    "random_graph",
    "regime",
]
