"""Sparse autoencoders in the files of other tools: SAELens, sparsify, dictionary_learning, OpenMOSS, Gemma Scope.

`record` is one autoencoder as all of them mean it; a file for each format reads and writes it; `matrix` says which kind
fits which format, and `write` obeys it; `folders` has the two functions that a caller needs. Tables and what cannot be
carried over are in `docs/autoencoders-formats.md`; `make oracles` lets each library judge.
"""
