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
VANISHED = 4.0
"""Decades by which a signal or gradient of a custom model must fall to be vanishing.

The rms is then a hundredth. Networks of seven tanh layers at Equinox's and PyTorch's default, whose
variance is a third of LeCun's, fall by 3.1, eight ReLU layers of LeCun's by 2.2, ten of a separable
network by 2.9: all of them train. Eight He + ReLU layers with one that was too small by 2, 4 or 6
decades trained with SGD and Adam as their healthy twin did (the digits, 200 steps, the best of four
rates); so a fall counts later than a rise, for which `FINE_DECADES` holds.
"""
STEEP = 1.5
"""Decades by which one step must rise, and the model's end with it, to be a fault.

Of the same eight layers, one whose weights were 3 times too large (+1.0) trained as its twin; at 10
times (+2.0) the loss after 200 steps of SGD was three times its twin's at the best of four rates,
and the largest rate that trained was a third; at 30 times (+3.0) none of them trained.
"""
FORGOTTEN = 6.0
"""Decades of a gradient's second moment after which a turn of a loop is said to teach nothing.

The rms is then a thousandth of that at the last turn. LSTMs and GRUs at their defaults are there
after 13 to 35 turns; they learn to remember, and it is no fault.
"""
SHARE = 0.25
"""Share of a fall that one layer must make to be at fault beside the growth of all.

Three equal ones are each named; what a sound layer makes by chance is a tenth of a decade, 2.5 %
of `VANISHED`.
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
SATURATED_CENTRED = 0.5
"""Share of Gaussian inputs, once their mean is 0, from which they are to be scaled down as well.

tanh reaches it at a standard deviation of 3.2, where `SATURATED` is reached at 6.8.
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
ALIKE_BY = 0.1
"""Decades within which two ways to scale the variance of weights fit them equally well.

The variance of 100 Gaussian weights scatters by 0.06 decades. Between fan_in and fan_out of a kind
of layer there are 0.3 decades and more, or nothing.
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
PARALLEL_DECADES = 3.5
"""Decades by which the share of the inputs' directions that is not common to all may be below 1.

With r the effective rank, the share is 1 - 1/r. At the end of networks of width 64 and 64 inputs
it was: He + ReLU, 12 layers -0.95, 50 layers -2.2, 100 layers -3.0; Glorot + tanh, 100 layers -0.5;
graph convolutions (4, 5 or 16 neighbours) with skip connections, 16 layers -1.3, 32 layers -1.9;
without them, 4 layers -1.6 with 4 neighbours and -3.9 with 16, 8 layers -3.7 and beyond the dtype.
"""
SHARP_ENTROPY = 0.25
"""Entropy of a softmax, as a share of that of equal weights, below which it counts as one-hot.

Of Gaussian scores it hardly depends on their number, from 2 to 1024: 0.77 to 0.93 at a standard
deviation of 1, 0.31 to 0.34 at 4, 0.19 to 0.21 at 6, 0.13 to 0.16 at 8, which sums of 64 products
have without 1/sqrt(64). It falls below 0.25 at 5.
"""
ONE_HOT_ENTROPY = 0.1
"""The same share of a single head, below which it is noted: scores of standard deviation 11."""
UNSCALED_SHARE = 0.5
"""Share of the product's size that the scores' spread must have, to be that product as it is.

With a factor of 1/sqrt(d) between them it is 0.25 for d = 16 and less for more.
"""
SCALED_SPREAD = 3.0
"""Standard deviation of scores after 1/sqrt(d) for that to be the remedy; their entropy is 0.4."""
SURE_NATS = 3.0
"""Nats by which the first loss of a classifier may be above that of equal probabilities.

Gaussian logits of standard deviation s add s²/2 while s is below 2: He's law with 10 to 1000
classes, whose logits have s = 1.4, 0.8 to 1.0; s = 2 adds 1.6 to 2.0, s = 3 adds 3.0 to 4.1.
"""
SURE_SD = 2.0
"""Standard deviation, or mean, of logits at which the first loss is below `SURE_NATS`."""
SURE_FAULT_NATS = 15.0
"""Nats above that of equal probabilities from which it is a fault; below, a note.

Trained on the digits (five He layers, 400 steps, SGD and Adam at their best rates, two seeds), the
held-out accuracy was 0.92 with readouts that start up to 5 nats above, 0.90 at 9, 0.89 at 18, and
0.83 (SGD) and 0.87 (Adam) at 38.
"""
SAME_CHANCE = 1.01
"""Ratio within which the loss by chance is that of two classes: it was told to 1 % (`SAME`)."""
LARGE_INPUT = 20.0
"""Rms of the inputs at a first layer above which they count as not rescaled.

Pictures from 0 to 255 have 85 (MNIST) to 147, standardised ones 1, the digits from 0 to 16 have 8.
"""
SMALL_INPUT = 1e-3
"""Rms of the inputs below which they count as vanishing: six decades of a second moment."""
FAR_INPUT = 10.0
"""Means over standard deviations of inputs above which they hardly differ: their cosine is 0.99.

Pictures from 0 to 1 have 0.4 (MNIST) to 2; temperatures in kelvin 30, years of a date 100.
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
FORGETFUL = ("tanh", "logistic", "sigmoid", "erf", "sin", "cos")
"""Activations, beside normalisations, whose output does not tell how large their input was.

What a forward step loses there is judged by `SATURATED`: SIREN's first layer makes sin's input 1.7
decades larger than the others do (Sitzmann et al. 2020, arXiv:2006.09661), and its output the same.
"""
BOUNDED = ("tanh", "logistic", "sigmoid", "erf")
"""Activations of custom models that can be saturated.

They are flat on both sides. ReLU and its like have half of their inputs on a flat side by nature.
"""
SAME_VALUE = 1e-3
"""Decades within which two second moments are those of one value.

Rounding to bfloat16 changes the second moment of 1000 numbers by 1e-4 of it at most, 4e-5 decades;
that of other numbers is as close in one of a thousand cases.
"""
SHUT = 1e-5
"""Mean of what a gate lets into a state below which it is shut, and not only slow.

A gated unit of 32 units that was to add up 8 of 40 inputs reached after 600 steps of Adam (the best
of two rates) an accuracy of 0.84 where its update gate had no bias and let in a half, 0.91 with
0.018 (a bias of 4), 0.86 with 3e-4 (8), 0.81 with 5e-5 (10), 0.71 with 6e-6 (12), 0.60 with 8e-7
(14) and 1e-7 (16); 0.5 is chance.
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
ROUNDED = 1e-4
"""Size below which a negative operand of a root or logarithm is taken for rounding.

E[x²] - E[x]² of a thousand float32 numbers around 10 with deviation 1e-5 was -3e-5 at the least.
"""
LOSS_SCALE = 15
"""log2 of the factor of the loss that is recommended where it does: that of Micikevicius et al.
(2018), arXiv:1710.03740, and of most implementations at the start.
"""


def sample_error(seen: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the standard error of log10 q over which rows are looked at, `seen` of `rows`.

    Rows are inputs × positions. Their squared lengths may scatter as the squares of single
    Gaussians do; of all rows there is no error.
    """
    left = np.maximum(1 - seen / np.maximum(rows, 1), 0)
    return np.sqrt(2.0 * left / np.maximum(seen, 1)) / math.log(10.0)


def unit_error(units: np.ndarray) -> np.ndarray:
    """Return the standard error of log10 q over random weights, of `units` Gaussian units.

    The relative variance of a mean of n squares of Gaussians is 2/n.
    """
    return np.sqrt(2.0 / np.maximum(units, 1)) / math.log(10.0)
