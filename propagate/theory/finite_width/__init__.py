r"""How far a layer of n units is from the limit of wide layers: width-1/n theory.

`layer_theory` follows the signal from layer to layer at infinite width and collects the constants
of each layer, expectations of `gauss`; `fluctuation` adds them up over the stack to a mean and a
variance of logarithms over draws of the weights.

Hanin and Nica (2018), arXiv:1812.05994; Roberts et al. (2022), arXiv:2106.10165; derived here: the
effect of K on gradients, and the mean over a batch whose inputs share weights.
"""
