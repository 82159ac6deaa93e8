"""Tensors of a file that ``torch.save`` wrote, without torch and without running what is in the file.

Such a file is a zip with a pickle (``data.pkl``) and the bytes of each storage (``data/KEY``). A pickle is a program.
This reader interprets the few instructions that plain state dicts are made of, and knows a closed list of names
(`_NAMES`). It imports and calls nothing that a file names.

Source of the layout: ``torch/serialization.py`` of PyTorch, from 1.6 on.
"""

from __future__ import annotations

import math
import pickletools
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tastemaker.errors import ModelError

_BFLOAT16 = "torch BFloat16Storage"
_STORAGES: dict[str, np.dtype[Any]] = {
    "torch FloatStorage": np.dtype("<f4"),
    "torch HalfStorage": np.dtype("<f2"),
    "torch DoubleStorage": np.dtype("<f8"),
    _BFLOAT16: np.dtype("<u2"),
    "torch LongStorage": np.dtype("<i8"),
    "torch IntStorage": np.dtype("<i4"),
    "torch ByteStorage": np.dtype("u1"),
}
_DICT = "collections OrderedDict"
_TENSOR = "torch._utils _rebuild_tensor_v2"
_PARAMETER = "torch._utils _rebuild_parameter"
_NAMES = {*_STORAGES, _DICT, _TENSOR, _PARAMETER}

_MAX_GROWTH = 16
"""How many times the size of the file its tensors may take as float32: bytes grow fourfold, and tied weights share."""

Floats = npt.NDArray[np.float32]


class _NotPlainError(Exception):
    """The file holds something that plain weights do not have."""


@dataclass(frozen=True)
class _Name:
    """A name that the file may mention. It is compared with `_NAMES`, and nothing is imported for it."""

    name: str


@dataclass(frozen=True)
class _Storage:
    """The bytes that tensors share: their key in the file, their type, and how many numbers they are."""

    kind: str
    key: str
    size: int


@dataclass(frozen=True)
class _Tensor:
    """A view of a storage; its offset and strides count numbers, not bytes."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_pth(path: Path) -> dict[str, Floats]:
    """Return the tensors of a state dict that torch saved, as float32, by name.

    The dictionary may lie under the key ``state_dict``. Other entries beside it are ignored then.

    Args:
        path: A ``.pth``, ``.pt`` or ``.ckpt`` file.

    Raises:
        ModelError: The file cannot be read, is damaged, or holds anything else than tensors, text and numbers.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.partition("/")[2]: info for info in archive.infolist()}
            if "byteorder" in members and _read_member(archive, members, "byteorder") != b"little":
                raise _NotPlainError("its numbers are big-endian")
            state = _interpret(_read_member(archive, members, "data.pkl"))
            state = state.get("state_dict", state) if isinstance(state, dict) else state
            if not isinstance(state, dict) or not all(isinstance(value, _Tensor) for value in state.values()):
                raise _NotPlainError("it holds no dictionary of tensors")
            _check_tensors(state.values(), path.stat().st_size)
            keys = {tensor.storage.key for tensor in state.values()}
            contents = {key: _read_member(archive, members, f"data/{key}") for key in keys}
            return {str(name): _to_array(tensor, contents[tensor.storage.key]) for name, tensor in state.items()}
    except _NotPlainError as error:
        raise ModelError(f"{path} cannot be read as plain weights: {error}; save a dictionary of tensors") from error
    except zipfile.BadZipFile as error:
        raise ModelError(
            f"{path} cannot be read as plain weights: it is damaged, or not what torch.save writes since PyTorch 1.6"
        ) from error
    except Exception as error:  # a damaged file makes zipfile and pickletools raise many kinds
        words = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelError(f"{path} cannot be read as plain weights: {words}") from error


def _read_member(archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], name: str) -> bytes:
    info = members.get(name)
    if info is None or info.compress_type != zipfile.ZIP_STORED:
        raise _NotPlainError(f"{name} is missing in it, or compressed")
    return archive.read(info)


def _interpret(program: bytes) -> Any:  # noqa: ANN401 - what a pickle holds
    """Return what a pickle stands for, with `_Tensor` and `_Name` for what torch would build."""
    stack: list[Any] = []
    marks: list[int] = []  # heights of the stack
    memo: dict[int, Any] = {}
    argument: Any
    for opcode, argument, _ in pickletools.genops(program):
        match opcode.name:
            case "PROTO":
                pass
            case "STOP":
                return stack.pop()
            case "MARK":
                marks.append(len(stack))
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(opcode.name == "NEWTRUE")
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE":
                stack.append(argument)
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(_pop(stack, len(stack) - int(opcode.name[-1]))))
            case "TUPLE":
                stack.append(tuple(_pop(stack, marks.pop())))
            case "APPEND" | "APPENDS":
                values = _pop(stack, len(stack) - 1 if opcode.name == "APPEND" else marks.pop())
                _require(list, stack[-1]).extend(values)
            case "SETITEM" | "SETITEMS":
                values = _pop(stack, len(stack) - 2 if opcode.name == "SETITEM" else marks.pop())
                keys = [_require((str, int), key) for key in values[::2]]
                _require(dict, stack[-1]).update(zip(keys, values[1::2], strict=True))
            case "GLOBAL":
                if argument not in _NAMES:
                    raise _NotPlainError(f"it holds a {'.'.join(argument.split())[:80]}, and objects are never loaded")
                stack.append(_Name(argument))
            case "BINPERSID":
                stack.append(_make_storage(stack.pop()))
            case "REDUCE":
                name, arguments = _pop(stack, len(stack) - 2)
                stack.append(_build(name, arguments))
            case "BUILD":  # what a module notes beside its tensors
                stack.pop()
                _require(dict, stack[-1])
            case other:
                raise _NotPlainError(f"its pickle has the instruction {other}")
    raise _NotPlainError("its pickle has no end")


def _pop(stack: list[Any], start: int) -> list[Any]:
    if start < 0:
        raise _NotPlainError("its pickle is damaged")
    popped = stack[start:]
    del stack[start:]
    return popped


def _require(kind: Any, value: Any) -> Any:  # noqa: ANN401 - any type, and a value of it
    if not isinstance(value, kind):
        raise _NotPlainError(f"its pickle has a {type(value).__name__} in a place where it does not belong")
    return value


def _make_storage(identity: Any) -> _Storage:  # noqa: ANN401 - what a pickle holds
    _word, kind, key, _location, size, *_view = _require(tuple, identity)
    if _require(_Name, kind).name not in _STORAGES:
        raise _NotPlainError(f"its pickle has a storage of {kind.name}")
    return _Storage(kind.name, _require(str, key), _require(int, size))


def _build(name: Any, arguments: Any) -> Any:  # noqa: ANN401 - what a pickle holds
    """Return what torch would have built by calling ``name``."""
    called = _require(_Name, name).name
    match _require(tuple, arguments):
        case () if called == _DICT:
            return {}
        case (_Tensor() as tensor, *_) if called == _PARAMETER:
            return tensor
        case (_Storage() as storage, int(offset), tuple(shape), tuple(strides), *_) if called == _TENSOR:
            return _Tensor(storage, offset, shape, strides)
    raise _NotPlainError(f"it holds a {called.replace(' ', '.')} of an unknown form")


def _check_tensors(tensors: Iterable[_Tensor], file_size: int) -> None:
    """Refuse tensors that lie outside of their storage, or that would take far more memory than the file does."""
    total = 0
    for tensor in tensors:
        numbers = (tensor.offset, tensor.storage.size, *tensor.shape, *tensor.strides)
        if not all(isinstance(n, int) and 0 <= n <= file_size for n in numbers):
            raise _NotPlainError("a tensor has an impossible shape")
        last = tensor.offset + sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.strides, strict=True))
        if 0 not in tensor.shape and last >= tensor.storage.size:
            raise _NotPlainError("a tensor reaches beyond its storage")
        total += 4 * math.prod(tensor.shape)
    if total > _MAX_GROWTH * file_size:
        raise _NotPlainError("its tensors would take many times its size")


def _to_array(tensor: _Tensor, content: bytes) -> Floats:
    """Return a tensor, given the bytes of its storage."""
    dtype = _STORAGES[tensor.storage.kind]
    if len(content) != tensor.storage.size * dtype.itemsize:
        raise _NotPlainError("a storage has another size than its tensors say")
    stored = np.frombuffer(content, dtype)[tensor.offset if 0 not in tensor.shape else len(content) :]
    steps = [stride * dtype.itemsize for stride in tensor.strides]
    view = np.lib.stride_tricks.as_strided(stored, tensor.shape, steps, writeable=False)
    if tensor.storage.kind == _BFLOAT16:  # the upper half of a float32
        return (view.astype(np.uint32) << 16).view(np.float32)
    return view.astype(np.float32, order="C")
