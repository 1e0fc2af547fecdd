"""Gated codes: whether a latent fires is decided apart from how much (Rajamanoharan et al. 2024, arXiv 2404.16014).

    g = encoder (x - b) + gate_bias               the gate opens where g > 0
    z = [g > 0] relu(exp(r) * (encoder (x - b)) + magnitude_bias)
    loss = |x - x^(z)|^2 + w sum relu(g) + |x - x^_frozen(relu(g))|^2

The penalty falls on the gate alone, so that magnitudes do not shrink. A gate has no slope of its own; it learns from
the last term, in which the decoder is held fixed.
"""

from collections.abc import Mapping

from torch import Tensor

from lrh_ray.analyses.sae.architectures.architecture import Architecture, Loss
from lrh_ray.analyses.sae.linear import encode
from lrh_ray.analyses.sae.mesh import ALONE, Mesh
from lrh_ray.analyses.sae.parts import sum_of_parts
from lrh_ray.analyses.sae.reader import with_what_is_no_code
from lrh_ray.analyses.sae.sparsity import PowerPenalty


class Gated(Architecture):
    """Gated codes under an L1 penalty of the gate."""

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        penalty: PowerPenalty,
        *,
        widths: tuple[int, ...] = (),
        mesh: Mesh = ALONE,
    ) -> None:
        """Parameters `encoder`, `decoder`, `decoder_bias`; what else there is begins at 0, from `encoder_bias`."""
        own = dict(parameters)
        bias = own.pop("encoder_bias", own["decoder"].new_zeros(len(own["decoder"])))
        defaults = {"gate_bias": bias, "magnitude_bias": bias.clone(), "log_gain": bias.new_zeros(len(bias))}
        super().__init__(defaults | own, penalty, widths=widths, mesh=mesh)
        self._power = penalty

    def _parts(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Gates before the threshold, and magnitudes, both [N, M]."""
        own = self.parameters
        gate = encode(rows, own["encoder"], own["gate_bias"], self.offset())
        magnitude = ((gate - own["gate_bias"]) * own["log_gain"].exp() + own["magnitude_bias"]).relu()
        return gate, magnitude

    def codes(self, rows: Tensor) -> Tensor:
        """Magnitudes where the gate is open."""
        gate, magnitude = self._parts(rows)
        return magnitude * (gate > 0)

    def explaining(self, target: Tensor, rows: Tensor, step: int) -> Loss:
        """Squared error, penalty of the gates, and what the gates alone explain."""
        gate, magnitude = self._parts(rows)
        codes, open_gate = magnitude * (gate > 0), gate.relu()
        square = self.square(target, rows, codes)
        held = {name: tensor.detach() for name, tensor in self.parameters.items()}
        frozen = with_what_is_no_code(sum_of_parts(open_gate @ held["decoder"], self.latents), held, rows)
        auxiliary = (frozen - target).pow(2).sum(dim=1).mean()
        penalty = self._power(self.weighed(open_gate), step)
        return Loss(total=square + penalty + auxiliary, square=square, codes=codes)
