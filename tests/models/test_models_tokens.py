import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers.processors import ByteLevel, TemplateProcessing

from lrh_ray.errors import CheckpointBroken, ConfigError, CorpusError, DocumentTooLong
from lrh_ray.models.checkpoints import Checkpoint
from lrh_ray.models.tiny import BOS_ID, EOS_ID, byte_tokenizer
from lrh_ray.models.tokens import keep_spaces, load_tokenizer, template_digest, tokenize
from lrh_ray.records import Document

texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=60)
corpora = st.lists(texts, min_size=1, max_size=5)
BYTES = byte_tokenizer()


def tokens_of(documents, tokenizer=BYTES, **options):
    settings = {"render": "raw", "bos": "tokenizer", "window": 1000, "too_long": "error", **options}
    return tokenize(documents, tokenizer, **settings)


def document(text):
    return [Document(id="doc", text=text)]


def numbered(many):
    return [Document(id=f"d{index}", text=text) for index, text in enumerate(many)]


def sequences(batch):
    """(document id, token ids, positions, ranges) of each sequence."""
    cuts = batch.starts[1:-1]
    ranges = np.stack([batch.char_start, batch.char_end], axis=1)
    split = (np.split(array, cuts) for array in (batch.token_ids, batch.positions, ranges))
    return list(zip(batch.document_ids, *split, strict=True))


@given(corpora)
def test_ranges_cover_exactly_the_text_of_their_tokens(many):
    documents = numbered(many)
    for document, (name, ids, _, ranges) in zip(documents, sequences(tokens_of(documents)), strict=True):
        assert name == document.id
        own = ranges[:, 0] < ranges[:, 1]
        shared = {tuple(one): ids[own & (ranges == one).all(axis=1)] for one in ranges[own].tolist()}
        for (start, end), same_range in shared.items():
            assert BYTES.decode(same_range) == document.text[start:end]
        tiles = sorted(shared)
        assert [start for start, _ in tiles] + [len(document.text)] == [0] + [end for _, end in tiles]


@given(corpora, st.integers(2, 9), st.sampled_from(["tokenizer", "always", "never"]))
def test_splitting_changes_no_token_of_the_content(many, window, bos):
    documents = numbered(many)
    whole = tokens_of(documents, bos=bos)
    split = tokens_of(documents, bos=bos, window=window, too_long="split")
    assert split.lengths.max() <= window

    def content(batch):
        own = batch.char_end > batch.char_start
        names = np.repeat(batch.document_ids, batch.lengths)
        return [names[own].tolist(), *(a[own].tolist() for a in (batch.token_ids, batch.char_start, batch.char_end))]

    assert content(split) == content(whole)
    for _, ids, positions, _ in sequences(split):
        assert positions.tolist() == list(range(len(ids)))
        assert (ids[0] == BOS_ID) == (bos != "never")


@given(corpora)
def test_bos_is_decided_once(many):
    documents = numbered(many)
    lengths = {bos: tokens_of(documents, bos=bos).lengths for bos in ("tokenizer", "always", "never")}
    assert (lengths["always"] == lengths["never"] + 1).all()
    assert (lengths["tokenizer"] == lengths["always"]).all()
    ids = tokens_of(documents, bos="always").token_ids
    assert (ids == BOS_ID).sum() == len(documents)


def test_a_bos_written_in_the_text_is_not_doubled():
    assert tokens_of(document("<s>a"), bos="always").token_ids.tolist()[0] == BOS_ID
    assert (tokens_of(document("<s>a"), bos="always").token_ids == BOS_ID).sum() == 1


def test_a_tokenizer_that_adds_both_ends_is_followed_or_not():
    tokenizer = byte_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", BOS_ID), ("</s>", EOS_ID)]
    )
    ends = {bos: tokens_of(document("ab"), tokenizer, bos=bos) for bos in ("tokenizer", "always", "never")}
    assert [batch.num_tokens for batch in ends.values()] == [4, 3, 2]
    assert EOS_ID not in ends["never"].token_ids
    pieces = sequences(tokens_of(document("abc"), tokenizer, window=4, too_long="split"))
    assert [(ids[0], ids[-1], len(ids)) for _, ids, _, _ in pieces] == [(BOS_ID, EOS_ID, 4), (BOS_ID, EOS_ID, 3)]


def test_a_tokenizer_without_bos_cannot_always_give_one():
    tokenizer = byte_tokenizer()
    tokenizer.bos_token = None
    with pytest.raises(ConfigError, match="no bos token; use bos: tokenizer"):
        tokens_of(document("a"), tokenizer, bos="always")


def test_spaces_belong_to_tokens_whatever_the_tokenizer_trims():
    tokenizer = byte_tokenizer()
    tokenizer.backend_tokenizer.post_processor = ByteLevel(trim_offsets=True)
    trimmed = tokens_of(document("a  b\n\n"), tokenizer)
    assert (trimmed.char_end > trimmed.char_start).sum() == 4
    keep_spaces(tokenizer)
    kept = tokens_of(document("a  b\n\n"), tokenizer)
    assert kept.char_start.tolist() == list(range(6))
    assert kept.char_end.tolist() == list(range(1, 7))
    assert kept.token_ids.tolist() == trimmed.token_ids.tolist()


@pytest.mark.parametrize("text", ["hello", " padded\n", "user", "[user]", "☃ naïve"])
@pytest.mark.parametrize("trim", [False, True])
def test_chat_offsets_lead_back_to_the_documents_own_text(text, trim):
    tokenizer = byte_tokenizer()
    if trim:
        tokenizer.chat_template = tokenizer.chat_template.replace("message['content']", "message['content'] | trim")
    batch = tokens_of(document(text), tokenizer, render="chat")
    own = batch.char_end > batch.char_start
    start, end = batch.char_start[own].min(), batch.char_end[own].max()
    assert text[start:end] == (text.strip() if trim else text)
    assert tokenizer.decode(batch.token_ids[own]) == text[start:end]
    assert tokenizer.decode(batch.token_ids) == f"<s>[user]\n{text[start:end]}</s>\n"
    assert (batch.char_start[~own] == 0).all()


def test_pieces_of_a_chat_are_framed_like_documents_of_their_own():
    frame = len("[user]\n") + 3
    pieces = sequences(tokens_of(document("abcdef"), render="chat", window=frame + 4, too_long="split"))
    assert [BYTES.decode(ids) for _, ids, _, _ in pieces] == ["<s>[user]\nabcd</s>\n", "<s>[user]\nef</s>\n"]


@pytest.mark.parametrize(
    ("template", "told"),
    [
        (None, "no chat template; use render: raw"),
        ("hello", "drops the user's message"),
        ("{{ messages[0]['content'] | upper }}", "drops the user's message"),
        ("{{ messages[0]['content'] | replace('b', 'c') }}", "rewrites the text of document 'doc'"),
    ],
)
def test_templates_that_lose_the_text_are_refused(template, told):
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    with pytest.raises(ConfigError, match=told):
        tokens_of(document("abc"), tokenizer, render="chat")


def test_a_template_that_writes_bos_cannot_be_without():
    with pytest.raises(ConfigError, match="template itself writes the bos"):
        tokens_of(document("a"), render="chat", bos="never")
    assert (tokens_of(document("a"), render="chat", bos="always").token_ids == BOS_ID).sum() == 1


def test_the_template_digest_follows_the_template():
    other = byte_tokenizer()
    other.chat_template += " "
    assert template_digest(BYTES, "chat") == template_digest(byte_tokenizer(), "chat")
    assert template_digest(BYTES, "raw") == template_digest(other, "raw") != template_digest(BYTES, "chat")
    assert template_digest(BYTES, "chat") != template_digest(other, "chat")


def test_a_document_longer_than_the_window_is_named_with_both_remedies():
    with pytest.raises(DocumentTooLong, match=r"'doc' has 12 tokens; the window .* is 11\. Set too_long: split .* or"):
        tokens_of(document("x" * 11), window=11)
    assert tokens_of(document("x" * 11), window=12).num_tokens == 12
    with pytest.raises(DocumentTooLong, match="leaves no room"):
        tokens_of(document("xx"), window=1, too_long="split")


def test_a_document_without_a_token_of_its_own_is_named():
    with pytest.raises(CorpusError, match="'doc' has no token of its own"):
        tokens_of(document(""))


def test_no_documents_are_no_tokens():
    batch = tokens_of([])
    assert (batch.num_tokens, batch.starts.tolist(), batch.document_ids) == (0, [0], ())


def test_a_saved_tokenizer_loads_and_a_missing_one_is_refused(tiny, tmp_path):
    batch = tokens_of(document("a b"), load_tokenizer(tiny))
    assert batch.char_end.tolist() == [0, 1, 2, 3]
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(CheckpointBroken, match="no usable tokenizer"):
        load_tokenizer(Checkpoint(name="x", path=tmp_path))
