"""Damaged and forged artefacts: a typed error each time, and nothing linked, run or evaluated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
import torch

from braze.artifact import container
from braze.artifact.compiled_graph import CompiledFxGraph
from braze.errors import ArtifactError, BrazeError, LinkError, SignatureError
from braze.runtime import cpu_engine, linker
from tests.artifact import fuzz
from tests.artifact.graphs import dynamic_bytes, fixed_bytes


class Links:
    """Stands in for the linker, and counts."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, objects: Any, *, exports: Any, **more: Any) -> Any:
        self.count += 1
        defined = frozenset[str]().union(*[linker.read_symbols(o).defined for o in objects])  # type: ignore[union-attr]
        if missing := set(exports) - defined:
            raise LinkError(f"no {missing}")
        return self

    def address(self, name: str) -> int:
        return 4096


@pytest.fixture
def links(monkeypatch: pytest.MonkeyPatch) -> Iterator[Links]:
    fixed_bytes(), dynamic_bytes()  # made, linked and run before the linker is replaced
    made = Links()
    monkeypatch.setattr(linker, "link", made)
    monkeypatch.setattr(cpu_engine, "link", made)
    monkeypatch.setattr(linker, "_llvm", lambda: pytest.fail("LLVM was asked for"))
    fuzz.burnt.clear()
    yield made
    assert not fuzz.burnt


def load(data: bytes) -> CompiledFxGraph:
    """As far as a file gets: to a function that could be called."""
    graph = CompiledFxGraph.after_deserialization(data, trusted=True)
    graph.post_compile()
    return graph


BYTES = pytest.mark.parametrize("bytes_of", [fixed_bytes, dynamic_bytes])


@BYTES
def test_the_artefacts_themselves_load(bytes_of: Callable[[], bytes], links: Links) -> None:
    load(bytes_of())
    assert links.count == 1


@BYTES
def test_damaged_files_never_reach_the_linker(bytes_of: Callable[[], bytes], links: Links) -> None:
    data = bytes_of()
    accepted = []
    for what, broken in fuzz.damaged(data, 5000, seed=3):
        try:
            load(broken)
        except ArtifactError:
            continue
        accepted.append(what)
    assert not accepted
    assert links.count == 0


def test_every_truncation(links: Links) -> None:
    data = fixed_bytes()
    for length in range(len(data)):
        with pytest.raises(ArtifactError):
            load(data[:length])
    assert links.count == 0


def repacked(data: bytes, **changed: bytes | None) -> bytes:
    """The file with other sections under right checksums; None takes one away. ``/`` and ``.`` are ``_``."""
    sections: dict[str, bytes] = {name: bytes(section) for name, section in container.unpack(data).items()}
    for name in list(sections):
        key = name.replace("/", "_").replace(".", "_")
        if key in changed:
            value = changed.pop(key)
            if value is None:
                del sections[name]
            else:
                sections[name] = value
    sections.update({name: value for name, value in changed.items() if value is not None})
    return container.pack(sections)


def section(data: bytes, name: str) -> bytes:
    return bytes(container.unpack(data)[name])


@BYTES
def test_sections_missing_swapped_or_too_many(bytes_of: Callable[[], bytes], links: Links) -> None:
    data = bytes_of()
    names = [name for name in container.unpack(data) if name != "constants"]
    for name in names:
        with pytest.raises(ArtifactError, match=r"lacks|no metadata|constant"):
            load(repacked(data, **{name.replace("/", "_").replace(".", "_"): None}))
    with pytest.raises(ArtifactError, match="too many"):
        load(repacked(data, extra=b""))
    with pytest.raises(BrazeError):
        load(repacked(data, metadata=section(data, "v0/m0.o")))
    assert links.count == 0


def test_missing_constants(links: Links) -> None:
    with pytest.raises(ArtifactError, match="lacks its constant"):
        load(repacked(fixed_bytes(), constants=None))


@BYTES
def test_forged_metadata(bytes_of: Callable[[], bytes], links: Links) -> None:
    """With checksums that are right: refused, or a function that was made of nothing but what the grammar
    has."""
    data = bytes_of()
    metadata = section(data, "metadata")
    outcomes = {"refused": 0, "unlinkable": 0, "loaded": 0}
    for changed in fuzz.forged(metadata, 2500, seed=4):
        try:
            load(repacked(data, metadata=changed))
        except ArtifactError:
            outcomes["refused"] += 1
        except LinkError:
            outcomes["unlinkable"] += 1
        else:
            outcomes["loaded"] += 1
    assert outcomes["refused"] > 1500 and outcomes["loaded"] > 20, outcomes


@pytest.mark.parametrize("depth", [100, 10_000])
def test_deeply_nested_metadata(depth: int, links: Links) -> None:
    for opener in (b"\x91", b"\x81\xa1a"):
        with pytest.raises(ArtifactError):
            load(repacked(fixed_bytes(), metadata=opener * depth + b"\xc0"))


def edited(data: bytes, edit: Callable[[Any], None]) -> bytes:
    """The file with metadata that ``edit`` has changed: a tree of what msgpack has, and extensions."""
    tree = msgspec.msgpack.decode(section(data, "metadata"))
    edit(tree["graph"])
    return repacked(data, metadata=msgspec.msgpack.encode(tree))


def instructions(graph: Any, kind: str) -> list[Any]:
    return [i for i in graph["variants"][0]["plan"]["instructions"] if i["type"] == kind]


def expr(text: str) -> msgspec.msgpack.Ext:
    return msgspec.msgpack.Ext(1, text.encode())


def _set(kind: str, **values: Any) -> Callable[[Any], None]:
    return lambda graph: instructions(graph, kind)[0].update(values)


def _set_spec(kind: str, **values: Any) -> Callable[[Any], None]:
    return lambda graph: instructions(graph, kind)[0]["spec"].update(values)


def _drop_buffer(graph: Any) -> None:
    instructions(graph, "run_segment")[-1]["buffers"].pop()


def _drop_size(graph: Any) -> None:
    instructions(graph, "run_segment")[-1]["sizes"].pop()


def _drop_check(graph: Any) -> None:
    plan = graph["variants"][0]["plan"]
    plan["instructions"].remove(instructions(graph, "check_tensor")[0])


def _drop_range(graph: Any) -> None:
    plan = graph["variants"][0]["plan"]
    plan["instructions"].remove(instructions(graph, "check_range")[0])


def _rename_entry(graph: Any) -> None:
    instructions(graph, "run_segment")[0]["entry"] = "GOMP_parallel"


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (_drop_buffer, r"no .*seg1\.args\."),
        (_drop_size, r"no .*seg1\.args\."),
        (_rename_entry, "no .*GOMP_parallel"),
        (_drop_check, "does not check its input"),
        (_drop_range, "does not check that 2 <= "),
        (_set("check_range", lower=1), "does not check that 2 <= "),
        (_set_spec("check_tensor", sizes=[expr("1"), expr("1")]), "checks its input .* otherwise"),
        (_set_spec("check_tensor", strides=[None, None]), "checks its input .* otherwise"),
        (_set_spec("check_tensor", device="x' or True or '"), "not a device"),
        (_set_spec("allocate", sizes=[expr("-4")]), "negative"),
        (_set_spec("allocate", sizes=[expr("4611686018427387904")]), "too large"),
        (_set("run_segment", entry=f"seg0({fuzz.CANARY})"), "not a symbol"),
        (_set("run_segment", threads="s77"), "not a number of threads"),
        (_set("call_extern", target=f"aten::mm({fuzz.CANARY})"), "qualified name"),
        (_set("call_extern", target="load_library::__call__.__call__"), "has no load_library"),
        (_set("call_extern", target="python::call0"), "which no artefact may"),
        (_set("call_extern", kwargs=[[f"out={fuzz.CANARY}, x", None]]), "not a keyword"),
        (lambda g: g["inputs"].pop(), "inputs"),
        (lambda g: g["outputs"].pop(), "outputs"),
        (lambda g: g["inputs"][2].update(alignment=3), "cannot be aligned"),
        (lambda g: g["variants"][0]["plan"].update(name="f\0"), "not the name"),
        (_set("run_segment", extra=1), "unknown field"),
        (lambda g: g["inputs"][0].update(extra=1), "unknown field"),
        (lambda g: g["variants"][0]["plan"]["errors"][0]["check"].update(extra=1), "unknown field"),
        (lambda g: g["variants"].clear(), "section too many"),
        (lambda g: g["variants"][0]["parts"][0].update(opt_levels=[]), "section too many"),
    ],
)
def test_what_would_crash_or_run_if_it_were_believed(
    edit: Callable[[Any], None], says: str, links: Links
) -> None:
    forged = edited(dynamic_bytes(), edit)
    with pytest.raises(BrazeError, match=says):
        load(forged)


def test_untrusted_code_is_not_linked(links: Links) -> None:
    graph = CompiledFxGraph.after_deserialization(fixed_bytes())
    with pytest.raises(SignatureError, match="not made here"):
        graph.post_compile()
    assert links.count == 0


def test_objects_of_another_graph_do_not_link() -> None:
    """The real linker, with the code of one artefact under the plan of another."""
    data, other = dynamic_bytes(), fixed_bytes()
    last = max(name for name in container.unpack(data) if name.endswith(".o"))
    swapped = repacked(data, **{last.replace("/", "_").replace(".", "_"): section(other, "v0/m1.o")})
    graph = CompiledFxGraph.after_deserialization(swapped, trusted=True)
    with pytest.raises(LinkError, match=r"defines no 'seg0\.args\."):
        graph.post_compile()


def test_what_was_stored_runs() -> None:
    graph = load(fixed_bytes())
    x = torch.arange(8.0).view(2, 4)
    (out,) = graph.run([x])
    assert torch.equal(out, (x * torch.tensor([1.0, 2.0, 3.0, 4.0])).t())
