"""The activation store: bytes, chunks, commits, order of rows, exactly once.

Owns the plan, the commit protocol, the shards and the reader. Does not know models, Ray, or what a row means.
"""
