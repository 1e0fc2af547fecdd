"""Who runs where: the verbs map, reduce and sample over a Ray cluster. The only package that imports Ray."""
