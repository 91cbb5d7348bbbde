"""GPT-2 (Radford et al. 2019), as sections C.2 and E train it.

Pre-LN decoder, learned positions, GELU by its tanh approximation, causal attention, a head without bias; equal
to Hugging Face's ``GPT2LMHeadModel`` (``pdjax.weights.layouts``) when the heads are concatenated.
"""

from typing import Annotated, Literal

from pdjax.models.decoder import Decoder
from pdjax.models.layers import Activation
from pdjax.models.precision import Compute
from pdjax.settings import Aside, Count, Positive, Share, settings


@settings
class Gpt2(Decoder):
    """A GPT-2 decoder (sections C.2 and E); for a task of one class per input, the last position decides."""

    num_layers: Count = 4
    num_heads: Count = 8
    head_dim: Count | None = 8
    """None: width / num_heads"""
    width: Count | None = None
    """of the residual stream; None: num_heads * head_dim"""
    feed_forward_multiple: Count = 4
    """the width of the feed-forward layer, in widths of the residual stream"""
    dropout: Share = 0.0
    """0.1 in the released code, which left it on during evaluation too"""
    tied_head: bool = False
    """the output layer is the token embedding; only where classes are tokens"""
    heads: Literal["concatenate", "average"] = "concatenate"
    """concatenate: width = num_heads * head_dim. average: the heads' outputs are averaged before the output projection,
    so that any number of heads of any size fits a width (figure 10 c)"""
    compute: Compute = "float32"
    """the type in which it computes: see ``Compute``"""
    scan_layers: bool = False
    """one layer is compiled and runs for all, so that many compile about as fast as one; parameters have the layers
    as an axis (see ``pdjax.models.stack``)"""
    rematerialize: Annotated[bool, Aside()] = False
    """layers keep nothing for the backward pass but what came in, and run again there: a third more to compute, and
    memory for one layer's activations instead of all"""
    activation: Activation = "gelu_tanh"
    """of the feed-forward layers"""
    epsilon: Positive = 1e-5
    """added to variances in layer norms"""
    vocabulary_rows: Count | None = None
    """of the token embedding, and of the output layer; more than tokens are padding, which no string has and nothing
    predicts. None: as many as tokens"""
    vocabulary_block: Count | None = None
    """the output layer goes over so many classes at a time, where the loss can (``pdjax.distill.vocabulary``). None:
    all at once"""

    @property
    def averages_heads(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether any number of heads of any size fits the width."""
        return self.heads == "average"
