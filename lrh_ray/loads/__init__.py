"""Stores in other tools: numpy, xarray, dask, torch, Hugging Face datasets, anndata, and the hub.

Every file here opens a store read-only and hands its rows on, lazily where the tool allows it. Ray Data stands in
`lrh_ray.runtime.datasource`, because only the runtime imports Ray. Three lines for each are in `docs/loading.md`.
"""
