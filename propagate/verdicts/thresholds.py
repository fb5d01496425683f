"""Every number that a verdict rests on, with its calibration.

Five of them are needed while a record is made or read, below this room: they are kept in `record`
and have their calibration here.
"""

import math

import numpy as np

from propagate.record import spine, statistics

FINE_DECADES = 6 * math.log10(math.e)  # 2.606
"""Largest change of a second moment over the whole depth that still counts as fine.

A signal that shrinks as exp(-l/xi) is trainable down to about 6 xi (Schoenholz et al. 2017,
arXiv:1611.01232), where it has lost a factor e^6. It admits every pairing that is known to
train at depth 50 (He + ReLU: 0 ± 0.4 decades at width 256; Xavier + tanh: -1.8, and slowing;
LeCun + SELU: +1.5) and none that is known not to (torch's gain 5/3 + tanh: +4.2; Xavier + ReLU:
-15). It is a change relative to the other end of the stack, never an absolute size.
"""
SETTLED_FROM = 0.25
"""Share of the depth after which growth is taken to have settled, in both directions.

Transients to a fixed point take xi_q < 2 layers for saturating activations; a quarter of the
depth leaves them out and keeps three quarters of the layers to average over.
"""
CONFIDENCE = 0.95
"""Level of the interval of a growth rate, over seeds (Student's t), or over layers if there are
fewer than `ENOUGH_SEEDS`: the increments of log-moments are then taken as independent, which
they are in homogeneous networks (Hanin & Nica 2018, arXiv:1812.05994) and which is cautious
where the forward signal is pulled back to a fixed point."""
ENOUGH_SEEDS = 3
"""With 2 seeds, Student's t has one degree of freedom and the interval is 12.7 deviations wide."""
COLLAPSE_MARGIN = 1.5
"""Decades above the dtype's eps^2 within which rounding takes over from what the inputs differ by.

The variance over inputs of a collapsed signal stalls at (eps/3.5)^2 of its second moment (the
variance of rounding): 10^-14.9 in float32, 10^-5.3 in bfloat16 and 10^-7.1 in float16, where it
was measured at 10^-14.5 and 10^-5.4. It is followed down to eps^2 times this margin (10^-12.4,
10^-2.7 and 10^-4.5), which He + ReLU, whose share is 0.4 % at depth 100, stays above.
"""
SYMMETRIC = 0.99
"""Share of units that equal the layer's mean: zeros and constants give 1, random weights 0."""
SATURATED = 0.75
"""Share of (input, unit) pairs with small slope, averaged over the layers.

ReLU has 0.5 by its nature; tanh reaches 0.75 at sqrt(q) = 7, three times past its bend.
"""
UNDERFLOW_MARGIN = 3.0
"""Decades above the dtype's smallest normal number within which a zero counts as underflow."""
STEP = 0.8
"""Decades of a second moment by which one layer must differ from its peers to be departing, if
that is also more than `STEP_SPREADS` spreads of them.

At width 64 and batch 64 the step of a layer of a He + ReLU network scatters by 0.10 decades forward
and 0.05 backward (standard deviation, over 200 networks of 12 layers); the largest of a network
was 0.47. A weight ten times too small is
2.0, a forgotten residual scale of 1/sqrt(12) is 1.1, a sigmoid among ReLUs is 1.1 backward.
"""
STEP_SPREADS = 6.0
"""Robust standard deviations of the peers' steps, beyond which a step is out of line.

A Gaussian is beyond six with probability 2e-9. Here the spread is estimated: of 12 Gaussian peers
one is beyond in 1.3 % of sets, of 30 in 0.15 %. That is why `STEP` is asked besides.
"""
SD_PER_MAD = 1.4826
"""Standard deviation of a Gaussian over its median absolute deviation: 1/Φ^-1(3/4)."""
GROWTH_CHANGE = 0.1
"""Decades per layer by which a slope may differ from that of a baseline, by default.

The slope of a He + ReLU layer of width 64 scatters by 0.10 decades between random keys; for one
key it repeats to rounding, so this leaves room for a new version of JAX, not for a new key.
"""
PEERS = 4
"""Fewest layers of a kind among which one may be called out of line: a majority of three."""
DEAD = 0.9
"""Share of channels that are zero for every input and position, of one activation.

A ReLU layer of a deep network whose inputs have become alike has half of its channels dead.
"""
DEAD_ROWS = 16
"""Inputs × positions that it takes to call a channel dead: by chance 2^-16 of a He layer's are."""
ALIKE = 0.99
"""Mean cosine between the positions of one input at which tokens count as collapsed.

Attention alone takes them above it by its second layer (Dong et al. 2021, arXiv:2103.03404); a
transformer of 2 pre-LN blocks with skip connections had 0.67 at most at initialisation.
"""
WIDTH_EXPONENT = 0.25
"""Power of width that still counts as none, of the rms of a signal or of its change.

Halfway to 1/2, the smallest power by which a parametrisation goes wrong. In
`tests/benchmarks/width_exponents.py` (two hidden layers, widths 64 to 512, 8 seeds) the changes of
16 networks in µP had powers from -0.12 to +0.05, with intervals of ±0.10 at most, and all passed;
the output's of those with a readout of variance 1/width had +0.35 to +0.69 on average: 15 of 16
failed, one was not settled.
"""


BAND_SIGMAS = 4.5
"""Standard errors, of a mean over seeds, by which a layer may be off the theory of its stack.

A layer that is as predicted is farther off with probability 7e-6. Of a network of depth 50, with
51 layers in two directions, that calls less than one in a thousand.
"""
BAND_DECADES = 0.02
"""Decades by which a layer may be off its theory besides: the next order in 1/width.

Theory stops at the first order. Of 12 layers of tanh, SELU and ReLU, at widths from 64 to 256, no
mean over 128 seeds was off by more than 2.7 standard errors, which were 0.002 to 0.03 decades.
With more seeds the standard error falls below what the next order adds.
"""
BOUNDED = ("tanh", "logistic", "sigmoid", "erf")
"""Activations of custom models that can be saturated.

They are flat on both sides. ReLU and its like have half of their inputs on a flat side by nature.
"""
SATURATED_SLOPE = statistics.SATURATED_SLOPE
"""Share of the largest |φ'| below which a unit counts as saturated on an input: 0.05.

tanh falls below it at |h| = 2.18, where tanh h = 0.975; the sigmoid at twice that.
"""
SYMMETRIC_RTOL = statistics.SYMMETRIC_RTOL
"""Share of a layer's largest magnitude within which a unit equals the mean over units: 1e-5.

Equal terms differ by the rounding of a sum: 1e-5 is that of 1000 terms in float32. Random units
differ by the order of 1.
"""
CONSTANT_SHARE = statistics.CONSTANT_SHARE
"""Share of a parameter's second moment below which its variance counts as rounding: 1e-5.

The mean over the rms of float32 numbers that are all equal is 1 to 1e-7; a law that is drawn has a
variance of the order of its second moment.
"""
STREAM_ADDITIONS = spine.STREAM_ADDITIONS
"""Fewest additions that make a residual stream: 4, as many as `PEERS`.

With fewer none of them can be called out of line.
"""
STREAM_SHARE = spine.STREAM_SHARE
"""Most layers with parameters to one addition of a residual stream: 4.

A transformer block has 2 or 3 of them to each of its two additions (4 with the three projections of
attention apart); a plain stack with a few additions has more.
"""
FLUSHED = 0.1
"""Share of a gradient's or signal's elements that a dtype may flush to zero, of those that are not
zero for another reason.

Of Gaussian numbers a tenth lies below half of float16's smallest, 2^-25, if their rms is 2^-22; the
rounding of the others to multiples of 2^-24 is then 7 % of the rms. A ReLU network of 7 layers that
learns another's outputs in float16 (SGD with momentum, 1500 steps, 3 seeds) ends at the loss of
float32 with shares up to 4 % at the start, at 1.3 times that with 7 %, 2.3 times with 12 % and 5
times with 23 %.
"""
FLUSHED_NOTE = 0.01
"""Share from which that is noted: at an rms of 2^-18.6, where rounding is 0.7 % of it."""
FLUSHED_DECADES = 5 * math.log10(2.0)
"""Decades above the dtype's smallest number below which the rms must be for a flush to matter.

What is flushed is smaller than half of that number: with an rms 2^5 of it, it is 1/64 of the rms at
most, as the gradients of improbable classes are that a softmax makes.
"""
LOSS_SCALE = 15
"""log2 of the factor of the loss that is recommended where it does: that of Micikevicius et al.
(2018), arXiv:1710.03740, and of most implementations at the start.
"""


def unit_error(units: np.ndarray) -> np.ndarray:
    """Return the standard error of log10 q over random weights, of `units` Gaussian units.

    The relative variance of a mean of n squares of Gaussians is 2/n.
    """
    return np.sqrt(2.0 / np.maximum(units, 1)) / math.log(10.0)
