"""GPT-NeoX (Black et al. 2022), the architecture of Pythia (Biderman et al. 2023).

Pre-LN decoder with rotary positions on part of each head, attention and feed-forward side by side, exact GELU, and a
head without bias that is not the token embedding; equal to Hugging Face's ``GPTNeoXForCausalLM``
(``pdjax.weights.layouts``). At first parameters are drawn as GPT-2's are.
"""

from typing import Annotated

from pydantic import Field

from pdjax.errors import require
from pdjax.models.decoder import Decoder
from pdjax.models.layers import Activation
from pdjax.models.precision import Compute
from pdjax.models.rotary import Rotary
from pdjax.settings import Aside, Count, Positive, Share, settings


@settings
class GptNeoX(Decoder):
    """A GPT-NeoX decoder, such as Pythia; for a task of one class per input, the last position decides."""

    num_layers: Count = 4
    num_heads: Count = 8
    head_dim: Count | None = 8
    """None: width / num_heads"""
    width: Count | None = None
    """of the residual stream; None: num_heads * head_dim"""
    feed_forward_multiple: Count = 4
    """the width of the feed-forward layer, in widths of the residual stream"""
    dropout: Share = 0.0
    tied_head: bool = False
    """the output layer is the token embedding; only where classes are tokens"""
    rotary_share: Annotated[float, Field(gt=0, le=1)] = 0.25
    """of each head's dimensions, the first, that rotary positions turn; rounded down"""
    rotary_base: Annotated[float, Field(gt=1)] = 10_000.0
    """the wavelengths of rotary positions are 2 pi to almost 2 pi times this"""
    parallel_residual: bool = True
    """attention and feed-forward read the same residual stream; False: one after the other, as in GPT-2"""
    compute: Compute = "float32"
    """the type in which it computes: see ``Compute``"""
    scan_layers: bool = False
    """one layer is compiled and runs for all, so that many compile about as fast as one; parameters have the layers
    as an axis (see ``pdjax.models.stack``)"""
    rematerialize: Annotated[bool, Aside()] = False
    """layers keep nothing for the backward pass but what came in, and run again there: a third more to compute, and
    memory for one layer's activations instead of all"""
    activation: Activation = "gelu"
    """of the feed-forward layers"""
    epsilon: Positive = 1e-5
    """added to variances in layer norms"""
    vocabulary_rows: Count | None = None
    """of the token embedding, and of the output layer; more than tokens are padding, which no string has and nothing
    predicts (Pythia's 50,304 are for fewer tokens). None: as many as tokens"""
    vocabulary_block: Count | None = None
    """the output layer goes over so many classes at a time, where the loss can (``pdjax.distill.vocabulary``). None:
    all at once"""

    def __post_init__(self):
        super().__post_init__()
        turned = self.rotary.dimensions
        require(
            turned > 0 and turned % 2 == 0,
            "a rotary_share of an even number of a head's dimensions, at least 2",
            f"{turned} of {self.dimensions_per_head} with rotary_share {self.rotary_share}",
            "change rotary_share or head_dim",
        )

    @property
    def rotary(self) -> Rotary:
        """How queries and keys are turned."""
        return Rotary(int(self.rotary_share * self.dimensions_per_head), self.rotary_base)
