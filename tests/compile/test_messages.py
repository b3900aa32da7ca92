"""Requests and answers as bytes; log lines and warnings that are kept and said again."""

from __future__ import annotations

import logging
import threading
import warnings

import msgspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from braze import errors
from braze.artifact import codec, container
from braze.artifact.compiled_graph import CompiledFxGraph
from braze.compile import capture
from braze.compile.capture import LogLine, Warned, captured
from braze.compile.messages import Answer, Context, Failure, Host, Request, pack_answer, unpack_answer
from braze.compile.remote_job import compile_request, other_versions
from braze.errors import ArtifactError, BrazeWarning, FallbackError, LoweringError
from braze.runtime.cpu_engine import target_of
from tests.compile.requests import request_of


def with_constant(x: torch.Tensor) -> torch.Tensor:
    return x @ torch.tensor([[1.0, 2.0], [3.0, 4.0]])


# -- requests -----------------------------------------------------------------------------------------------
def test_a_request_comes_through() -> None:
    request = request_of(with_constant, torch.randn(3, 2), dynamic=True, llvm_opt_level=2)
    sent = Request.of(request)
    data = sent.to_bytes()
    received = Request.from_bytes(data)
    assert received.text == sent.text and received.context == sent.context == Context.here()
    assert received.constants.keys() == sent.constants.keys() and len(sent.constants) == 1
    assert torch.equal(*(next(iter(r.constants.values())) for r in (sent, received)))
    parsed = received.parse()
    assert parsed.config == request.config and parsed.name == request.name
    assert received.to_bytes() == data
    assert "constants" not in container.unpack(
        Request.of(request_of(lambda x: x + 1, torch.randn(3))).to_bytes()
    )


def test_the_context_is_what_holds() -> None:
    logger = logging.getLogger("braze")
    before, default = logger.level, torch.get_default_dtype()
    logger.setLevel(17)
    torch.set_default_dtype(torch.float64)
    try:
        context = Context.here()
    finally:
        logger.setLevel(before)
        torch.set_default_dtype(default)
    assert context.levels["braze"] == 17
    assert context.torch.default_dtype == "float64"
    (host,) = context.hosts
    assert target_of(host.made_for).lanes in (4, 8, 16)
    assert other_versions(context.versions) is None
    theirs = msgspec.structs.replace(context.versions, torch="1.0")
    assert other_versions(theirs) == f"torch {context.versions.torch}, and not 1.0"


@pytest.fixture(scope="module")
def request_bytes() -> bytes:
    return Request.of(request_of(with_constant, torch.randn(3, 2))).to_bytes()


def test_rubbish_is_no_request(request_bytes: bytes) -> None:
    sections = {name: bytes(part) for name, part in container.unpack(request_bytes).items()}
    wrong_version = msgspec.structs.replace(codec.decode(sections["context"], Context, {}), schema=0)
    for changed in (
        {"request": sections["request"]},
        {**sections, "more": b""},
        {**sections, "context": b"\x80"},
        {**sections, "context": codec.encode(wrong_version)[0]},
        {**sections, "request": b"\xff\xfe"},
        {**sections, "constants": b"nothing"},
    ):
        with pytest.raises(ArtifactError):
            Request.from_bytes(container.pack(changed))


@given(st.data())
def test_damaged_requests_are_refused(request_bytes: bytes, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(request_bytes) * 8 - 1))
    damaged = bytearray(request_bytes)
    damaged[position // 8] ^= 1 << position % 8
    answer, artifact = unpack_answer(compile_request(bytes(damaged)))
    assert artifact is None and answer.failure is None
    assert answer.refused is not None and answer.refused.startswith("the request cannot be read")


def test_a_text_that_is_no_graph_is_refused(request_bytes: bytes) -> None:
    sections = {name: bytes(part) for name, part in container.unpack(request_bytes).items()}
    for text in (b"", b"# braze graph 2\n", sections["request"].replace(b"aten.mm", b"aten.nn")):
        answer, _ = unpack_answer(compile_request(container.pack({**sections, "request": text})))
        assert answer.refused is not None and "cannot be read" in answer.refused


def test_a_request_of_another_compiler_is_refused(request_bytes: bytes) -> None:
    sections = {name: bytes(part) for name, part in container.unpack(request_bytes).items()}
    context = codec.decode(sections["context"], Context, {})
    theirs = msgspec.structs.replace(context.versions, tools={"llvmlite": "0.1"})
    other = codec.encode(msgspec.structs.replace(context, versions=theirs))[0]
    answer, _ = unpack_answer(compile_request(container.pack({**sections, "context": other})))
    assert answer.refused is not None and "and not 0.1" in answer.refused


def test_code_is_made_for_the_machine_that_asks(request_bytes: bytes) -> None:
    sections = {name: bytes(part) for name, part in container.unpack(request_bytes).items()}
    context = codec.decode(sections["context"], Context, {})
    hosts = (Host("cpu", "x86-64-v3", {"features": "", "lanes": "8"}),)
    other = codec.encode(msgspec.structs.replace(context, hosts=hosts))[0]
    _, artifact = unpack_answer(compile_request(container.pack({**sections, "context": other})))
    assert artifact is not None
    (variant,) = CompiledFxGraph.after_deserialization(artifact).variants
    (part,) = variant.info.parts
    assert part.made_for == hosts[0].made_for


# -- answers ------------------------------------------------------------------------------------------------
def test_an_answer_comes_through() -> None:
    line = LogLine("braze.cache", 20, "a line", "file.py", 3, 1.5)
    warned = Warned("BrazeWarning", "careful", "file.py", 4)
    answer = Answer(logs=(line,), warnings=(warned,))
    back, artifact = unpack_answer(pack_answer(answer, b"artefact"))
    assert back == answer and artifact is not None and bytes(artifact) == b"artefact"


@pytest.mark.parametrize("name", [n for n in errors.__all__ if n not in ("BrazeWarning",)])
def test_every_error_travels_as_itself(name: str) -> None:
    error = getattr(errors, name)("it failed", node="aten.sin", where="model.py:3", hint="do this")
    back, _ = unpack_answer(pack_answer(Answer(failure=Failure.of(error))))
    assert back.failure is not None
    found = back.failure.error()
    assert type(found) is type(error)
    assert (found.what, found.node, found.where, found.hint) == (
        "it failed",
        "aten.sin",
        "model.py:3",
        "do this",
    )


def test_an_error_of_a_class_that_nobody_knows_is_of_the_nearest() -> None:
    class Special(LoweringError):
        pass

    assert type(Failure.of(Special("no")).error()) is LoweringError


def test_rubbish_is_no_answer() -> None:
    good = codec.encode(Answer())[0]
    failed = Answer(failure=Failure("FallbackError", "no"))
    for sections in (
        {},
        {"answer": good},  # without artefact, failure or refusal
        {"answer": codec.encode(failed)[0], "artifact": b"x"},
        {"answer": codec.encode(Answer(refused="no"))[0], "artifact": b"x"},
        {"answer": codec.encode(Answer(failure=Failure("SystemExit", "no")))[0]},
        {"answer": codec.encode(Answer(schema=99))[0], "artifact": b"x"},
        {"answer": good, "artifact": b"x", "more": b""},
        {"answer": b"\x93\x01\x02\x03", "artifact": b"x"},
        {"answer": codec.encode(Answer(logs=(LogLine("os", 20, "", "", 1, 1.0),)))[0], "artifact": b"x"},
        {"answer": codec.encode(Answer(logs=(LogLine("braze\n", 20, "", "", 1, 1.0),)))[0], "artifact": b"x"},
        {"answer": codec.encode(Answer(logs=(LogLine("braze", -1, "", "", 1, 1.0),)))[0], "artifact": b"x"},
    ):
        with pytest.raises(ArtifactError):
            unpack_answer(container.pack(sections))
    for data in (b"", b"rubbish" * 100):
        with pytest.raises(ArtifactError):
            unpack_answer(data)


# -- what is said -------------------------------------------------------------------------------------------
def test_what_is_said_in_a_block_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("braze.somewhere")
    with warnings.catch_warnings(record=True) as outside, caplog.at_level(logging.INFO):
        warnings.simplefilter("always")
        with captured() as said:
            logger.info("%d is %s", 1, "one")
            logging.getLogger("elsewhere").info("not ours")
            try:
                raise KeyError("x")
            except KeyError:
                logger.exception("it broke")
            warnings.warn("careful", BrazeWarning, stacklevel=1)
            warnings.warn("old", DeprecationWarning, stacklevel=1)
        logger.info("after")
        warnings.warn("after", UserWarning, stacklevel=1)
    assert [r.getMessage() for r in caplog.records] == ["not ours", "after"]
    assert [str(w.message) for w in outside] == ["after"]
    first, second = said.logs
    assert (first.logger, first.level, first.message) == ("braze.somewhere", logging.INFO, "1 is one")
    assert first.pathname == __file__ and first.created > 1e9
    assert second.message.startswith("it broke\nTraceback") and "KeyError: 'x'" in second.message
    assert [(w.category, w.text, w.filename) for w in said.warnings] == [
        ("BrazeWarning", "careful", __file__),
        ("DeprecationWarning", "old", __file__),
    ]


def test_other_threads_are_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("braze")
    inside, done = threading.Event(), threading.Event()

    def other() -> None:
        inside.wait(10)
        logger.warning("from another thread")
        warnings.warn("from another thread", BrazeWarning, stacklevel=1)
        done.set()

    thread = threading.Thread(target=other)
    thread.start()
    with warnings.catch_warnings(record=True) as outside:
        warnings.simplefilter("always")
        with captured() as said:
            inside.set()
            assert done.wait(10)
            logger.warning("from this one")
        thread.join()
    assert [line.message for line in said.logs] == ["from this one"] and not said.warnings
    assert [r.getMessage() for r in caplog.records] == ["from another thread"]
    assert [str(w.message) for w in outside] == ["from another thread"]


def test_blocks_of_two_threads_that_overlap_leave_the_process_as_it_was() -> None:
    before = warnings.showwarning
    entered, leave = threading.Event(), threading.Event()
    kept = []

    def other() -> None:
        with captured() as said:
            entered.set()
            leave.wait(10)
            warnings.warn("theirs", BrazeWarning, stacklevel=1)
        kept.append(said)

    thread = threading.Thread(target=other)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with captured() as said:
            thread.start()
            assert entered.wait(10)
            warnings.warn("ours", BrazeWarning, stacklevel=1)
        leave.set()
        thread.join()
    assert [w.text for w in said.warnings] == ["ours"]
    assert [w.text for w in kept[0].warnings] == ["theirs"]
    assert warnings.showwarning is before


def test_levels_hold_inside_and_are_put_back() -> None:
    logger = logging.getLogger("braze.levels")
    before = logger.level
    with captured({"braze.levels": logging.DEBUG}) as said:
        logger.debug("a detail")
    with captured({"braze.levels": logging.ERROR}) as silent:
        logger.warning("not asked for")
    assert [line.message for line in said.logs] == ["a detail"] and not silent.logs
    assert logger.level == before


def test_what_was_said_is_said_again(caplog: pytest.LogCaptureFixture) -> None:
    lines = [
        LogLine("braze.again", logging.INFO, "100% of it", "there.py", 7, 1e9),
        LogLine("braze.again", logging.DEBUG, "a detail", "there.py", 8, 1e9),
    ]
    with caplog.at_level(logging.INFO, "braze.again"):
        capture.replay_logs(lines)
    (record,) = caplog.records
    assert (record.name, record.levelname, record.getMessage()) == ("braze.again", "INFO", "100% of it")
    assert (record.pathname, record.lineno, record.created) == ("there.py", 7, 1e9)
    kinds = [Warned("BrazeWarning", "one", "a.py", 1), Warned("NoSuchWarning", "two", "a.py", 2)]
    with pytest.warns(UserWarning, match="one|two") as caught:
        capture.replay_warnings(kinds)
    assert [(w.category, str(w.message), w.lineno) for w in caught] == [
        (BrazeWarning, "one", 1),
        (UserWarning, "two", 2),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(BrazeWarning, match="one"):
            capture.replay_warnings(kinds)


def test_strict_mode_comes_back_as_its_own_error() -> None:
    def rectified(x: torch.Tensor) -> torch.Tensor:
        return torch._add_relu(x, x).abs()

    request = request_of(rectified, torch.rand(8), strict=True)
    answer, _ = unpack_answer(compile_request(Request.of(request).to_bytes()))
    assert answer.failure is not None
    error = answer.failure.error()
    assert type(error) is FallbackError
    assert (
        "_add_relu" in str(error.node) and error.where is not None and "torch._add_relu(x, x)" in error.where
    )
