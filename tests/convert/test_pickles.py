"""Pickles that are read as they are, and hostile ones that are refused."""

import collections
import io
import os
import pickle
import pickletools
import struct
import subprocess
import zipfile

import numpy as np
import pytest

from klip_jax.convert import pickles
from klip_jax.convert.stack_machine import Name, run

PLAIN = {
    "numbers": [0, -1, 255, 2**40, -(2**70), 1.5, True, None],
    "text": ("a", "ä", "x" * 300, b"raw", b"r" * 300),
    "nested": {"a": {"b": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)]}},
    3: [[], {}, [[1.0]]],
}
ARRAYS = [
    np.arange(6, dtype=np.float32).reshape(2, 3),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.arange(4, dtype=">i4"),
    np.array([[True, False]]),
    np.zeros((0, 3), np.float16),
    np.array(2.5),
    np.array(["ab", "c"]),
]


@pytest.mark.parametrize("protocol", range(6))
def test_plain_data_is_what_it_was(protocol):
    data = {k: v for k, v in PLAIN.items() if k != "text" or protocol > 2}
    assert pickles.loads(pickle.dumps(data, protocol)) == data
    ordered = collections.OrderedDict(a=1, b=2)
    assert pickles.loads(pickle.dumps(ordered, protocol)) == ordered


def test_ordered_dicts_of_python_2():
    class Old:
        def __reduce__(self):
            return collections.OrderedDict, ([["a", 1], ["b", [2]]],)

    assert pickles.loads(pickle.dumps(Old(), 2)) == {"a": 1, "b": [2]}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_arrays_are_what_they_were(protocol):
    for array in ARRAYS:
        loaded = pickles.loads(pickle.dumps({"a": array, "again": array}, protocol))
        for value in (loaded["a"], loaded["again"]):
            np.testing.assert_array_equal(value, array)
            assert value.dtype == array.dtype
    scalar = pickles.loads(pickle.dumps(np.float32(0.7), protocol))
    assert scalar == np.float32(0.7) and scalar.dtype == np.float32


def test_npy_files(tmp_path):
    images = np.arange(8, dtype=np.uint8).reshape(2, 2, 2)
    np.save(tmp_path / "dict.npy", {"imgs": images, "labels": images > 3})
    loaded = pickles.load(tmp_path / "dict.npy")
    np.testing.assert_array_equal(loaded["imgs"], images)
    np.testing.assert_array_equal(loaded["labels"], images > 3)
    for array in (images, np.asfortranarray(images)):
        np.save(tmp_path / "plain.npy", array)
        np.testing.assert_array_equal(pickles.load(tmp_path / "plain.npy"), array)


class Calls:
    """Pickles as a call of anything."""

    def __init__(self, function, *arguments):
        self.how = function, arguments

    def __reduce__(self):
        return self.how


class Sets:
    """Pickles as a call whose result is given a state."""

    def __init__(self, function, arguments, state):
        self.how = function, arguments, state

    def __reduce__(self):
        return self.how


def nested_in_array(value):
    array = np.empty((1,), object)
    array[0] = value
    return array


def stacked(module, name):
    """STACK_GLOBAL of a name that a dotted path would reach."""
    text = b"".join(
        b"\x8c" + bytes([len(t)]) + t.encode() + b"\x94" for t in (module, name)
    )
    return b"\x80\x04" + text + b"\x93(\x8c\x04true\x94tR."


def numpy_array(shape, size, dtype="'f4'"):
    """An array that claims `shape` and holds `size` bytes."""
    head = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
    kind = f"cnumpy\ndtype\n(S{dtype}\nI0\nI1\ntR".encode()
    state = f"(I1\n({''.join(f'I{n}' + chr(10) for n in shape)}t".encode()
    return head + state + kind + f"I00\nS'{'a' * size}'\ntb.".encode()


def torch_zip(program, compress=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compress) as archive:
        archive.writestr("a/data.pkl", program)
        archive.writestr("a/data/0", b"\0" * 4096)
    return buffer.getvalue()


def tensor(size, stride, offset=0):
    """A tensor over a storage of 1024 numbers, as torch.save writes it."""

    def numbers(values):
        return "(" + "".join(f"I{n}\n" for n in values) + "t"

    return (
        "ctorch._utils\n_rebuild_tensor_v2\n"
        "((S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nI1024\ntQ"
        f"I{offset}\n{numbers(size)}{numbers(stride)}I00\nNtR."
    ).encode()


CALLS = {
    "os.system": pickle.dumps(Calls(os.system, "true")),
    "eval": pickle.dumps(Calls(eval, "1")),
    "exec": pickle.dumps(Calls(exec, "1"), 0),
    "getattr": pickle.dumps(Calls(getattr, "a", "upper")),
    "import": pickle.dumps(Calls(__import__, "os")),
    "open": pickle.dumps(Calls(open, "/dev/null")),
    "popen": pickle.dumps({"deep": [Calls(subprocess.Popen, ["true"])]}),
    "partial": pickle.dumps(Calls(__import__("functools").partial, print)),
    "in_array": pickle.dumps(nested_in_array(Calls(os.system, "true"))),
    "class": pickle.dumps(Sets(Calls, (print,), {"how": 1})),
    "numpy_load": b"cnumpy\nload\n(S'/dev/null'\ntR.",
    "numpy_testing": b"cnumpy.testing._private.utils\nrunstring\n(S'1'\nNtR.",
    "torch_load": b"ctorch\nload\n(S'/dev/null'\ntR.",
    "torch_dotted": b"ctorch._utils\n_rebuild_tensor_v2.__globals__\n)R.",
    "stack_global": stacked("os", "system"),
    "stack_dotted": stacked("torch.storage", "_load_from_bytes.__globals__"),
    "code": b"ctypes\nCodeType\n)R.",
}
MACHINE = {
    "inst": (b"(S'true'\nios\nsystem\n.", "opcode INST"),
    "obj": (b"(cnumpy\nndarray\nS'true'\no.", "opcode OBJ"),
    "extension": (b"\x80\x02\x82\x01.", "opcode EXT1"),
    "persistent": (b"Pnothing\n.", "opcode PERSID"),
    "storage_outside": (b"S'storage'\nQ.", "storage outside"),
    "call_of_text": (b"S'eval'\n)R.", "what is not a name"),
    "call_of_a_mention": (b"ctorch\nFloatStorage\n)R.", "call torch.FloatStorage"),
    "call_of_a_module": (
        b"ctorch.nn.modules.linear\nLinear\n(I3\ntR.",
        "call torch.nn.modules.linear.Linear",
    ),
    "state_of_a_name": (b"cnumpy\ndtype\n}S'apply'\nNsb.", "a state to a Name"),
    "setstate": (b"(lS'__setstate__'\nb.", "a state to a list"),
    "fill_a_name": (b"cnumpy\ndtype\nS'a'\na.", "fills a Name"),
    "name_of_numbers": (b"\x80\x04K\x01K\x02\x93.", "not text"),
    "list_as_key": (b"}(lNs.", "list as a key"),
    "tuple_as_key": (b"})Ns.", "tuple as a key"),
    "huge_array": (numpy_array((2**40,), 4), "array .* in 4 bytes"),
    "negative_array": (numpy_array((-1,), 4), "the shape"),
    "objects": (numpy_array((1,), 1, "'O'"), "other objects"),
    "structures": (numpy_array((1,), 1, "'V8'"), "array of 'V8'"),
    "huge_bytes": (b"\x80\x04\x8e" + struct.pack("<Q", 2**50) + b".", "only 1 remain"),
    "empty": (b"", "exhausted"),
    "no_stop": (b"I1\n", "exhausted"),
    "no_stack": (b"0.", "empty stack"),
    "codec": (b"c_codecs\nencode\n(S'a'\nS'rot13'\ntR.", "encoded as 'rot13'"),
    "many_copies": (
        b"\x80\x04U\xff" + b"a" * 255 + b"q\x000"
        b"(" + 2**13 * b"c_codecs\nencode\n(h\x00S'latin1'\ntR0" + b"t.",
        "makes much more",
    ),
    "wide_tensor": (torch_zip(tensor((2**20, 2**20), (0, 0))), "in a storage of 1024"),
    "far_tensor": (torch_zip(tensor((4,), (1,), 2**30)), "in a storage of 1024"),
    "backward_tensor": (torch_zip(tensor((4,), (-1,), 8)), "the shape"),
    "compressed": (torch_zip(b"N.", zipfile.ZIP_DEFLATED), "compressed"),
    "zip_of_a_call": (torch_zip(CALLS["os.system"]), "wants .*system"),
}


@pytest.mark.parametrize("name", CALLS)
def test_what_executes_is_refused(name, tmp_path):
    path = tmp_path / "hostile.pkl"
    path.write_bytes(CALLS[name])
    with pytest.raises(ValueError, match="not executed: it wants ") as refusal:
        pickles.load(path)
    assert "\n" not in str(refusal.value) and "no number, array" in str(refusal.value)


@pytest.mark.parametrize("name", MACHINE)
def test_what_breaks_is_refused(name, tmp_path):
    data, message = MACHINE[name]
    path = tmp_path / "hostile.pkl"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"not read, and not executed: .*{message}"):
        pickles.load(path)


def test_object_arrays_execute_nothing(tmp_path):
    np.save(tmp_path / "a.npy", {"imgs": Calls(os.system, "true")}, allow_pickle=True)
    with pytest.raises(ValueError, match=r"it wants .*\.system"):
        pickles.load(tmp_path / "a.npy")


def test_a_nested_stream_executes_nothing():
    inner = CALLS["os.system"]
    outer = b"ctorch.storage\n_load_from_bytes\n(\x8e"
    outer += struct.pack("<Q", len(inner)) + inner + b"tR."
    with pytest.raises(ValueError, match="it wants "):
        pickles.loads(outer)


def test_source_code_is_not_looked_at():
    program = (
        b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n("
        b"}(S'type'\nS'class'\nS'class_name'\nS'EDMPrecond'\nS'module_src'\n"
        b"S'raise SystemExit'\nS'state'\n}S'sigma_data'\nF0.5\nsutR."
    )
    loaded = pickles.loads(program)
    assert loaded.name == "EDMPrecond" and loaded.state == {"sigma_data": 0.5}


def test_garbage_never_does_anything_but_raise(tmp_path):
    rng = np.random.default_rng(0)
    whole = pickle.dumps({"a": ARRAYS[0], "b": PLAIN}, 4)
    path = tmp_path / "garbage.pkl"
    for _ in range(300):
        data = bytearray(whole)
        for i in rng.integers(0, len(data), 3):
            data[i] = rng.integers(0, 256)
        path.write_bytes(data[: rng.integers(1, len(data))])
        try:
            pickles.load(path)
        except ValueError:
            pass


def test_every_opcode_is_known_or_refused():
    names = {op.name for op in pickletools.opcodes}
    refused = {"INST", "OBJ", "EXT1", "EXT2", "EXT4", "PERSID", "NEXT_BUFFER"}
    refused |= {"READONLY_BUFFER", "NEWOBJ_EX"}
    from klip_jax.convert import stack_machine

    own = {n[3:] for n in dir(stack_machine._Machine) if n.startswith("op_")}
    own |= stack_machine.LITERALS | stack_machine.CONSTANTS.keys() | {"STOP"}
    assert own == names - refused


def test_names_are_only_those_of_the_table():
    seen = []

    def find(module, name):
        seen.append((module, name))
        return Name("a.b", apply=lambda *values: values)

    data = io.BytesIO(b"ca\nb c\n(I1\ntR.")
    assert run(data, find, lambda target, state: target) == (1,) and seen == [
        ("a", "b c")
    ]


def test_circles_of_modules_end():
    record = pickles.Record("A", {"_parameters": {"w": ARRAYS[0]}})
    record.state["_modules"] = {"again": record, "b": pickles.Record("B")}
    assert list(pickles.arrays(record)) == ["w"]
