"""Quantised weights: the packed layout, how weights are rounded, the layers that compute with them, the files.

formats     what the bytes mean; docs/quantised-format.md says it in prose
rounding    weights -> codes and scales: to nearest, by least error, or against activations
linear      QuantLinear, QuantEmbedding: the layers
stored      which tensors of a checkpoint are quantised and how; the file that holds them
calibrate   what the inputs of every matrix look like on text
convert     a checkpoint, or nothing but a configuration, -> a quantised checkpoint
measure     what quantisation costs: perplexity and divergence
"""
