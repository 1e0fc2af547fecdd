"""One file per question: which stores, passes and controls, in what order. Knows neither Ray nor Zarr."""
