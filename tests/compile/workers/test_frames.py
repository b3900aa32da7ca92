from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from braze.runtime.workers.worker import MAX_HEAD, Frame, FrameError, FrameReader, Kind, pack

FRAMES = st.builds(
    Frame, st.sampled_from(Kind), st.integers(0, 2**64 - 1), st.text(max_size=20), st.binary(max_size=200)
)


def bytes_of(frame: Frame) -> bytes:
    return pack(frame.kind, frame.number, frame.head, frame.body)


@given(st.lists(FRAMES, max_size=4), st.integers(1, 64))
def test_frames_survive_any_way_of_cutting_them(frames: list[Frame], step: int) -> None:
    data = b"".join(map(bytes_of, frames))
    reader = FrameReader()
    assert [f for i in range(0, len(data), step) for f in reader.feed(data[i : i + step])] == frames


@given(FRAMES, st.data())
def test_no_changed_bit_goes_unseen(frame: Frame, data: st.DataObject) -> None:
    damaged = bytearray(bytes_of(frame))
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        assert FrameReader(max_body=1000).feed(bytes(damaged)) == []  # waits for what will not come
    except FrameError:
        return
    raise AssertionError("a damaged frame was neither refused nor found incomplete")


@given(st.binary(min_size=1, max_size=100))
def test_rubbish_is_seen_at_its_first_byte(data: bytes) -> None:
    if data[:1] != b"B":
        with pytest.raises(FrameError, match="begins no frame"):
            FrameReader().feed(data)


def test_a_frame_is_not_larger_than_agreed() -> None:
    assert FrameReader(max_body=10).feed(pack(Kind.ANSWER, 1, "", bytes(10)))
    with pytest.raises(FrameError, match="larger than agreed"):
        FrameReader(max_body=10).feed(pack(Kind.ANSWER, 1, "", bytes(11))[:40])


def test_an_endless_error_is_cut() -> None:
    (frame,) = FrameReader().feed(pack(Kind.RAISED, 1, "e" * (MAX_HEAD + 5)))
    assert len(frame.head) == MAX_HEAD
