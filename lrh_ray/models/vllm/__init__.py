"""The vLLM backend: a tensor-parallel engine in processes of its own, whose rows arrive through shared memory.

    backend     blocks in, rows out through a sink, as every backend
    routes      which sites vLLM's own capture gives, which need hooks, which neither
    options     how the engine is started
    engine      one running engine: prompts in, windows of rows out
    ring        fixed-size slots of shared memory from one rank to the backend's process
    replica     the rings of all ranks, joined into full-width windows of rows
    share       the rank's side: gather, check, copy into the ring
    connector   route 1: vLLM's `extract_hidden_states`, loaded into its workers by module path
    extension   route 2: forward hooks in eager mode, for sites the connector cannot give

`ring`, `share`, `connector` and `extension` run inside vLLM's processes; `ring` is what both sides agree on. `routes`
and `ring` import neither torch nor vllm.
"""
