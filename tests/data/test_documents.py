import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sambay.data.documents import Document, ProblemSource, collate, completion_text, fill
from sambay.data.problems import problem_at, smalltalk_at
from sambay.errors import ConfigError
from sambay.tokenizer import Tokenizer
from sambay.train.vocabulary import train_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    problems = [problem_at(0, i, "train") for i in range(60)]
    return train_tokenizer([text for p in problems for text in (p.question, completion_text(p))], 400)


@pytest.fixture(scope="module")
def source(tokenizer):
    return ProblemSource(tokenizer, seed=3, smalltalk=0.2, second_turns=0.4)


def texts(tokenizer, document):
    ids = list(document.ids)
    prompt, completion = ids[: document.prompt_length], ids[document.prompt_length :]
    return tuple(tokenizer.decode(part, skip_special_tokens=False) for part in (prompt, completion))


def test_a_document_is_a_chat_whose_reply_is_learned(tokenizer):
    source = ProblemSource(tokenizer, seed=3)
    for index in range(20):
        document, problem = source(index), problem_at(3, index, "train")
        assert texts(tokenizer, document) == (
            f"<|user|>{problem.question}<|end|><|assistant|>",
            f"<think>\n{problem.thinking}\n</think>\n{problem.reply}<|end|>",
        )
        assert document.ids[-1] == tokenizer.token_id("<|end|>")
        assert document.ids.count(tokenizer.token_id("<think>")) == 1
        assert document.label == problem.family
        assert document.learned == len(document.ids) - document.prompt_length > 0


def test_second_turns_show_the_earlier_reply_without_its_thinking(source, tokenizer):
    turns = []
    for index in range(60):
        prompt, completion = texts(tokenizer, source(index))
        turns.append(prompt.count("<|user|>"))
        assert prompt.count("<|assistant|>") == turns[-1] == prompt.count("<|end|>") - turns[-1] + 1
        assert "think>" not in prompt
        assert completion.startswith("<think>\n")
        if turns[-1] == 2:
            earlier = prompt.split("<|assistant|>")[1]
            assert len(earlier.removesuffix("<|end|>").strip()) > 0
    assert set(turns) == {1, 2}
    assert 10 < turns.count(2) < 40


def test_smalltalk_has_its_share(source, tokenizer):
    family = smalltalk_at(0, 0).family
    labels = [source(index).label for index in range(200)]
    assert 20 < labels.count(family) < 65
    without = ProblemSource(tokenizer, seed=3)
    assert family not in {without(index).label for index in range(100)}


def test_documents_depend_on_index_and_seed_only(source, tokenizer):
    again = ProblemSource(tokenizer, seed=3, smalltalk=0.2, second_turns=0.4)
    assert [source(i) for i in (5, 0, 5, 2**35)] == [again(i) for i in (5, 0, 5, 2**35)]
    other = ProblemSource(tokenizer, seed=4, smalltalk=0.2, second_turns=0.4)
    assert [source(i) for i in range(10)] != [other(i) for i in range(10)]


def test_families(tokenizer):
    source = ProblemSource(tokenizer, seed=0, families={"equations": 1, "fractions": 2})
    assert {source(i).label for i in range(40)} == {"equations", "fractions"}


def test_train_and_test_share_no_problem(tokenizer):
    sources = [ProblemSource(tokenizer, seed=0, split=split, second_turns=0.3) for split in ("train", "test")]
    keys = [{problem_at(0, i, split).key for i in range(400)} for split in ("train", "test")]
    assert not keys[0] & keys[1]
    train, test = ({texts(tokenizer, source(i))[0] for i in range(150)} for source in sources)
    assert not train & test


def test_a_tokenizer_of_another_format():
    from tokenizers import Tokenizer as Backend
    from tokenizers import models

    with pytest.raises(ConfigError, match=r"has no <\|end\|> token"):
        ProblemSource(Tokenizer(Backend(models.BPE()), {}), seed=0)


# Steps


def take(source, index, tokens, longest, count):
    return list(itertools.islice(fill(source, index, tokens, longest), count))


@given(st.integers(1, 40), st.integers(2, 30), st.lists(st.tuples(st.integers(2, 25), st.integers(0, 24)), min_size=1))
def test_steps_resume_anywhere_with_the_same_documents(tokens, longest, shapes):
    def made(index):
        length, prompt = shapes[index % len(shapes)]
        return Document(tuple(range(index, index + length)), min(prompt, length - 1), "x")

    usable = [i for i, (length, prompt) in enumerate(shapes) if max(1, min(prompt, length - 1)) < length <= longest]
    if not usable:
        with pytest.raises(ConfigError, match=f"longest is {longest}"):
            take(made, 0, tokens, longest, 1)
        return
    steps = take(made, 0, tokens, longest, 6)
    drawn = [document for documents, _ in steps for document in documents]
    # Every document with anything to learn that is not too long, whole, in order, none twice.
    indices = [document.ids[0] for document in drawn]
    assert indices == [i for i in range(indices[-1] + 1) if i % len(shapes) in usable]
    assert all(document == made(i) for i, document in zip(indices, drawn, strict=True))
    assert all(document.learned > 0 for document in drawn)
    for documents, _ in steps:
        assert documents
        assert len(documents) == 1 or sum(len(document.ids) - 1 for document in documents) <= tokens
    for done in range(1, 6):
        assert take(made, steps[done - 1][1], tokens, longest, 6 - done) == steps[done:]


def test_documents_are_never_cut(source):
    whole = [source(index) for index in range(200)]
    limit = sorted(len(document.ids) for document in whole)[100]
    drawn = [document for documents, _ in take(source, 0, 1000, limit, 3) for document in documents]
    assert drawn == [document for document in whole if len(document.ids) <= limit][: len(drawn)]
    assert {document.ids[-1] for document in drawn} == {source.end}


def test_documents_that_are_all_too_long(source):
    with pytest.raises(ConfigError, match="longest is 3: 1000 documents in a row are longer; raise it"):
        take(source, 0, 100, 3, 1)


def test_collate(source):
    documents = [source(i) for i in range(7)]
    packed = collate(documents, "cpu")
    assert packed.counts == tuple(len(document.ids) - document.prompt_length for document in documents)
    assert packed.batch.lengths == tuple(len(document.ids) - 1 for document in documents)
    targets = packed.targets.split(packed.counts)
    rows = packed.batch.rows.split(packed.counts)
    start = 0
    for document, target, row in zip(documents, targets, rows, strict=True):
        ids = torch.tensor(document.ids)
        # Prompt tokens are never targets, and the last target is the end of the turn.
        assert target.tolist() == ids[document.prompt_length :].tolist()
        assert target[-1] == source.end
        # Each row holds the token before its target.
        assert packed.batch.input_ids[row].tolist() == ids[document.prompt_length - 1 : -1].tolist()
        assert row.min() >= start + document.prompt_length - 1
        start += len(ids) - 1


def test_collate_at_the_edges():
    packed = collate([Document((5, 6, 7), 0, "x"), Document((8, 9), 1, "x"), Document((1, 2, 3), 3, "x")], "cpu")
    assert packed.counts == (2, 1, 0)
    assert packed.targets.tolist() == [6, 7, 9]
    assert packed.batch.input_ids.tolist() == [5, 6, 8, 1, 2]
    assert packed.batch.rows.tolist() == [0, 1, 2]


def test_a_batch_is_where_the_model_is():
    packed = collate([Document((5, 6, 7), 1, "x"), Document((8, 9), 1, "x")], "meta")
    assert packed.batch.input_ids.device.type == packed.targets.device.type == "meta"
