"""Formulas: pure functions of NumPy arrays in float64. No files, no Zarr, no Ray, no torch.

`README.md` beside this file states the equations of the probes, their null control and what is not supported.
"""
