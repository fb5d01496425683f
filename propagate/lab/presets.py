"""Settings that tell the story of initialisation, each with what to look for."""

from collections.abc import Mapping
from typing import NamedTuple

from propagate.lab.setting import Setting


class Preset(NamedTuple):
    """A setting and its story, in Markdown."""

    setting: Setting
    story: str


PRESETS: Mapping[str, Preset] = {
    "the edge of chaos": Preset(
        Setting(),
        "ReLU keeps E h² at sigma_w² = 2 (He et al., 2015). Move sigma_w to 1.2 and to 1.7, and "
        "see the verdict turn to *vanishing* and to *exploding*.",
    ),
    "Glorot and Bengio (2010)": Preset(
        Setting(depth=10, activation="tanh", sigma_w=0.58),
        "The usual heuristic of the time, U(±1/√n), has n Var W = 1/3: gradients fall threefold in "
        "each layer. Choose `xavier_uniform`, which they proposed: n Var W = 1.",
    ),
    "He et al. (2015)": Preset(
        Setting(depth=30, init="xavier_normal"),
        "Under ReLU, Xavier's scale loses half of the signal in each of 30 layers, and the network "
        "does not train. Choose `he_normal`, which makes up for the half that ReLU cuts off.",
    ),
    "PyTorch's defaults": Preset(
        Setting(depth=20, init="torch"),
        "`torch.nn.Linear` draws from U(±1/√n). E h² settles, fed by the biases, while the "
        "variance over inputs (dashed) falls sixfold in each layer: all inputs look the same.",
    ),
    "SELU": Preset(
        Setting(activation="selu", init="lecun_normal"),
        "Klambauer et al. (2017): with sigma_w² = 1, mean and variance return to 0 and 1, and so "
        "no norm is needed. Choose `relu` for contrast.",
    ),
    "rank collapse": Preset(
        Setting(depth=5, width=64, family="attention alone", init="xavier_normal"),
        "Dong et al. (2021): attention without skips makes all tokens of an input equal within a "
        "few layers. Choose `transformer, Pre-LN` to see what skips save.",
    ),
    "Pre-LN": Preset(
        Setting(depth=10, width=64, family="transformer, Pre-LN", init="xavier_normal"),
        "Xiong et al. (2020): a norm within each branch. The stream grows with depth, and "
        "gradients stay tame. Compare Post-LN.",
    ),
    "Post-LN": Preset(
        Setting(depth=10, width=64, family="transformer, Post-LN", init="xavier_normal"),
        "Vaswani et al. (2017): a norm after each addition. The stream keeps its size, and "
        "gradients shrink towards the input.",
    ),
}
