"""The stack machine of pickles, without its import and without its call.

A pickle is a program that pushes numbers, fills containers, imports names and calls
what it imported. Here a name becomes what the caller's table has under it, or the
program is refused; applying a name runs the caller's own function; nothing else can be
called, no attribute is read or set, and opcodes that are not needed do not exist. Keys
are plain, so that hashing is quick, and what is copied is charged to a budget
proportional to the size of the file, so that small files stay small.

Reference: the opcodes of protocols 0 to 5 are described in Python's pickletools.
"""

import io
import pickletools
from collections.abc import Callable
from typing import Any

COPIES = 2
"""What a program may copy, in multiples of its length."""
LITERALS = frozenset(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING "
    "SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES "
    "SHORT_BINBYTES BINBYTES8 BYTEARRAY8".split()
)
CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}


class Name:
    """What a program may refer to by a name.

    Args:
      text: "module.name", for messages.
      apply: our own function that stands for it; None if it is only mentioned.
      new: makes an empty object of it, without arguments; None if it cannot.
    """

    __slots__ = ("apply", "new", "text")

    def __init__(self, text: str, apply=None, new=None):
        self.text, self.apply, self.new = text, apply, new


# A class that is a key, as trainers have it, is hashed by its identity.
_KEYS = str | int | float | bytes | Name | None


def run(
    stream: io.BytesIO,
    find: Callable[[str, str], Name],
    build: Callable[[Any, Any], Any],
    persistent: Callable[[Any], Any] | None = None,
) -> Any:
    """Run one program and return what it leaves; the stream is then just after it.

    Args:
      stream: of bytes in memory.
      find: (module, name) -> `Name`; raises ValueError for names that are not allowed.
      build: (object, state) -> the object that has this state.
      persistent: what an identifier of outside storage means; None if there is none.

    Raises:
      ValueError: if the program wants what there is not; other errors of Python if it
        is broken.
    """
    machine = _Machine(find, build, persistent, len(stream.getbuffer()))
    for opcode, argument, _ in pickletools.genops(stream):
        name = opcode.name
        if name == "STOP":
            return machine.pop()
        if name in LITERALS:
            machine.stack.append(argument)
        elif name in CONSTANTS:
            machine.stack.append(CONSTANTS[name]())
        else:
            step = getattr(machine, f"op_{name}", None)
            if step is None:
                raise ValueError(f"it uses the opcode {name}")
            step() if argument is None else step(argument)
    raise ValueError("it ends too early")


class _Machine:
    """Stack, marks and memo; one method an opcode."""

    def __init__(self, find, build, persistent, size):
        self.find, self.build, self.persistent = find, build, persistent
        self.stack, self.marks, self.memo, self.places = [], [], {}, {}
        self.budget = COPIES * size + 2**16

    def pop(self):
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise ValueError("it takes from an empty stack")
        return self.stack.pop()

    def top(self, *kinds):
        value = self.pop()
        self.stack.append(value)
        if type(value) not in kinds:
            raise ValueError(f"it fills a {type(value).__name__}")
        return value

    def charge(self, *values):
        """Count what an application may copy of its arguments."""
        for value in values:
            if isinstance(value, str | bytes | bytearray | list | tuple | dict):
                self.budget -= len(value)
        if self.budget < 0:
            raise ValueError("it makes much more than it holds")

    def since_mark(self):
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def op_PROTO(self, version):
        pass

    def op_FRAME(self, size):
        pass

    def op_MARK(self):
        self.marks.append(len(self.stack))

    def op_POP(self):
        self.pop()

    def op_POP_MARK(self):
        self.since_mark()

    def op_DUP(self):
        self.stack.append(self.stack[-1])

    def op_TUPLE(self):
        self.stack.append(tuple(self.since_mark()))

    def op_TUPLE1(self):
        self.stack.append((self.pop(),))

    def op_TUPLE2(self):
        last = self.pop()
        self.stack.append((self.pop(), last))

    def op_TUPLE3(self):
        last, middle = self.pop(), self.pop()
        self.stack.append((self.pop(), middle, last))

    def op_LIST(self):
        self.stack.append(self.since_mark())

    def op_DICT(self):
        items = self.since_mark()
        self.stack.append({})
        self._set(items)

    def op_FROZENSET(self):
        self.stack.append(frozenset(map(_key, self.since_mark())))

    def op_APPEND(self):
        value = self.pop()
        self.top(list).append(value)

    def op_APPENDS(self):
        values = self.since_mark()
        self.top(list).extend(values)

    def op_SETITEM(self):
        value, key = self.pop(), self.pop()
        self._set([key, value])

    def op_SETITEMS(self):
        self._set(self.since_mark())

    def op_ADDITEMS(self):
        values = self.since_mark()
        self.top(set).update(map(_key, values))

    def op_MEMOIZE(self):
        self.op_PUT(len(self.memo))

    def op_PUT(self, index):
        if index in self.memo:
            self.places.pop(id(self.memo[index]), None)
        self.memo[index] = self.stack[-1]
        self.places[id(self.stack[-1])] = index

    op_BINPUT = op_LONG_BINPUT = op_PUT

    def op_GET(self, index):
        self.stack.append(self.memo[index])

    op_BINGET = op_LONG_BINGET = op_GET

    def op_GLOBAL(self, both):
        self.stack.append(self._find(*both.split(" ", 1)))

    def op_STACK_GLOBAL(self):
        name = self.pop()
        self.stack.append(self._find(self.pop(), name))

    def op_BINPERSID(self):
        identifier = self.pop()
        if self.persistent is None:
            raise ValueError("it refers to storage outside the file")
        self.stack.append(self.persistent(identifier))

    def op_REDUCE(self):
        arguments = self.pop()
        self.stack.append(self._apply(self.pop(), arguments))

    def op_NEWOBJ(self):
        arguments, name = self.pop(), self.pop()
        empty = type(name) is Name and name.new is not None and arguments == ()
        self.stack.append(name.new() if empty else self._apply(name, arguments))

    def op_BUILD(self):
        state, target = self.pop(), self.pop()
        self.charge(state, *(state if type(state) is tuple else ()))
        built = self.build(target, state)
        self.stack.append(built)
        # It was memoised before; the memo must have what it became.
        if built is not target and id(target) in self.places:
            self.memo[self.places.pop(id(target))] = built

    def _find(self, module, name):
        if type(module) is not str or type(name) is not str:
            raise ValueError("it wants a name that is not text")
        return self.find(module, name)

    def _apply(self, name, arguments):
        if type(name) is not Name or type(arguments) is not tuple:
            raise ValueError("it applies what is not a name")
        if name.apply is None:
            raise ValueError(f"it wants to call {name.text}")
        self.charge(*arguments)
        return name.apply(*arguments)

    def _set(self, items):
        target = self.top(dict)
        if len(items) % 2:
            raise ValueError("it has a key without a value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_key(key)] = value


def _key(value):
    if not isinstance(value, _KEYS):
        raise ValueError(f"it has a {type(value).__name__} as a key")
    return value
