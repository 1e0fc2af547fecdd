"""Sparse autoencoders: what they are, how a step of training is made, and what it costs."""
