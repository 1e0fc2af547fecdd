"""How a value is read from a model: tokens, sites, backends, and the proof that the rows are right.

    checkpoints   a name becomes a folder of safetensors, and a digest
    facts         what a plan must know before any weight is read
    tokens        text becomes token ids with character offsets
    sites         names of points in a model, resolved for one model
    families      where those points are in each architecture, one file each
    backend, hf   blocks of tokens go in, rows come out through a `sink.RowSink`
    parity        rows compared with a plain float32 forward that streams one layer at a time
    tiny          seeded random checkpoints for tests and examples
    random_weights  an architecture initialised anew, as a control
    matrices      embedding, final norm, unembedding and logits, without the model between
    generate      prompts are continued, by transformers or by vLLM

This stage does not know what a value means, where rows are stored, or who runs it where. `config`, `checkpoints`,
`sites`, `families`, `sink` and `backend` import without torch; the others need the `models` extra.
"""
