"""Reads the weights of networks that were pickled whole, classes and all, without importing or running any of them.

``torch.save(module)`` writes a zip file: the tensors' bytes one by one, and a pickle that names the classes of a
network and what their attributes hold. Loading it the ordinary way needs those classes and runs whatever the pickle
names. Here every name stands for an inert object that can be filled with attributes and no more; what is left is a
name -> tensor mapping, as ``state_dict`` would have answered. Only names of the packages that such networks are
made of are honoured, and only the few functions that rebuild tensors and containers may be called: stand-ins do it.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, ClassVar

import torch
from torch import Tensor

from come_nav.core.errors import CheckpointError

# packages whose classes may appear by name; nothing of them is imported
PACKAGES = ("torch", "torchvision", "efficientnet_pytorch", "vint_train", "warmup_scheduler", "collections")
STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
WRAPPER = "module."  # by which DataParallel and DistributedDataParallel prefix what they wrap
MAX_DEPTH = 64
WAY_OUT = "only tensors, plain containers and networks of torch are read from a checkpoint"


def load_state_dict(path: Path, key: str | None = "model") -> dict[str, Tensor]:
    """Return name -> tensor of a checkpoint that holds a network or its state dict, whole or under ``key``.

    Raises:
        CheckpointError: in one line: no such file, not what torch.save writes, a name that is no part of a network, a
            call of anything but what rebuilds tensors, a tensor outside its bytes, or no tensors at all.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; give the downloaded checkpoint")
    try:
        with zipfile.ZipFile(path) as archive:
            content = _ModuleUnpickler(archive, *_pickle_of(archive)).load()
        found = content.get(key, content) if isinstance(content, dict) else content
        tensors = _tensors(found)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {' '.join(str(error).split())}") from None
    except zipfile.BadZipFile as error:
        raise CheckpointError(f"{path}: no whole zip file as torch.save writes it; download it again") from error
    except Exception as error:  # damaged pickles raise about every kind there is
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(f"{path}: cannot be read as a checkpoint ({reason[:80]}); download it again") from error
    if not tensors:
        raise CheckpointError(f"{path}: holds no network and no named tensors")
    while all(name.startswith(WRAPPER) for name in tensors):
        tensors = {name[len(WRAPPER) :]: tensor for name, tensor in tensors.items()}
    return tensors


class _Inert:
    """Stands for an object of a class that is not here: attributes may be set from plain data, nothing else."""

    def __init__(self, name: str) -> None:
        self.name, self.attributes = name, {}  # type: tuple[str, dict[str, Any]]


class _Name:
    """Stands for a class or function that a pickle names."""

    def __init__(self, name: str) -> None:
        self.name = name


def _pickle_of(archive: zipfile.ZipFile) -> tuple[IO[bytes], str]:
    """Return the pickle and the folder of the archive that it lies in."""
    names = [name for name in archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(names) != 1:
        raise CheckpointError("no checkpoint of torch.save: it has no data.pkl")
    return archive.open(names[0]), names[0].partition("/")[0]


class _ModuleUnpickler(pickle._Unpickler):
    """In Python, so that every operation that could call something is replaced here."""

    stack: list[Any]
    append: Callable[[Any], None]
    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(pickle._Unpickler.dispatch)

    def __init__(self, archive: zipfile.ZipFile, handle: IO[bytes], folder: str) -> None:
        super().__init__(handle, encoding="utf-8")
        self._archive, self._folder = archive, folder
        self._storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Return a stand-in for a name; nothing is imported."""
        full = f"{module}.{name}"
        if module.split(".", maxsplit=1)[0] not in PACKAGES and full not in CALLS:
            raise CheckpointError(f"refused: its pickle names {full[:60]}; {WAY_OUT}")
        return _Name(full)

    def persistent_load(self, pid: Any) -> Tensor:
        """Return the flat values (N,) of one storage."""
        kind, storage, key, _, count = pid
        dtype = STORAGES.get(storage.name.rpartition(".")[2]) if isinstance(storage, _Name) else None
        if kind != "storage" or dtype is None or not isinstance(key, str) or not isinstance(count, int):
            raise CheckpointError(f"holds a storage of an unknown kind ({pid!r:.60})")
        if key not in self._storages:
            info = self._archive.getinfo(f"{self._folder}/data/{key}")
            if info.file_size != count * dtype.itemsize or info.compress_type != zipfile.ZIP_STORED:
                raise CheckpointError(f"tensor data '{key}' is {info.file_size} bytes, not {count * dtype.itemsize}")
            data = bytearray(self._archive.read(info))
            self._storages[key] = torch.frombuffer(data, dtype=dtype) if count else torch.zeros(0, dtype=dtype)
        return self._storages[key]

    def load_reduce(self) -> None:
        """Let a stand-in do what one of a few functions would; refuse every other call."""
        arguments = self.stack.pop()
        function = self.stack[-1]
        call = CALLS.get(function.name) if isinstance(function, _Name) else None
        if call is None or not isinstance(arguments, tuple):
            raise CheckpointError(f"refused: its pickle wants to call {_told(function)}; {WAY_OUT}")
        self.stack[-1] = call(*arguments)

    def load_newobj(self) -> None:
        """Put an inert object in place of one of a class."""
        self.stack.pop()  # arguments of its __new__
        self.stack[-1] = _inert(self.stack[-1])

    def load_newobj_ex(self) -> None:
        """Put an inert object in place of one of a class."""
        self.stack.pop()
        self.load_newobj()

    def load_build(self) -> None:
        """Fill an inert object with attributes; containers that carry some of their own stay as they are."""
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, _Inert):
            parts = state if isinstance(state, tuple) else (state,)
            for part in parts:
                if isinstance(part, dict):
                    target.attributes.update(part)
        elif not isinstance(target, (OrderedDict, defaultdict)):
            raise CheckpointError(f"refused: its pickle wants to change {_told(target)}; {WAY_OUT}")

    def _refuse(self) -> None:
        raise CheckpointError(f"refused: its pickle calls by an opcode that no checkpoint needs; {WAY_OUT}")

    dispatch[pickle.REDUCE[0]] = load_reduce
    dispatch[pickle.NEWOBJ[0]] = load_newobj
    dispatch[pickle.NEWOBJ_EX[0]] = load_newobj_ex
    dispatch[pickle.BUILD[0]] = load_build
    for _opcode in (pickle.INST, pickle.OBJ, pickle.EXT1, pickle.EXT2, pickle.EXT4):
        dispatch[_opcode[0]] = _refuse


def _inert(name: Any) -> _Inert:
    if not isinstance(name, _Name) or name.name in CALLS:
        raise CheckpointError(f"refused: its pickle makes an object of {_told(name)}; {WAY_OUT}")
    return _Inert(name.name)


def _told(thing: Any) -> str:
    return thing.name[:60] if isinstance(thing, (_Name, _Inert)) else f"a {type(thing).__name__}"


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
    """Stand in for ``torch._utils._rebuild_tensor_v2``: a tensor of its own, from checked places of a storage."""
    numbers = (offset, *size, *stride)
    if not isinstance(storage, Tensor) or len(size) != len(stride):
        raise CheckpointError("holds a tensor without data")
    if not all(isinstance(number, int) and number >= 0 for number in numbers):
        raise CheckpointError(f"holds a tensor of shape {size!r:.40} and strides {stride!r:.40}")
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if 0 not in size and last >= len(storage):
        raise CheckpointError(f"a tensor of shape {tuple(size)} reaches beyond its {len(storage)} numbers")
    if torch.Size(size).numel() > len(storage):  # strides of 0 claim more than there is
        raise CheckpointError(f"a tensor of shape {tuple(size)} has but {len(storage)} numbers")
    return torch.as_strided(storage, size, stride, offset).clone()


def _rebuild_parameter(tensor: Any, *_: Any) -> Tensor:
    if not isinstance(tensor, Tensor):
        raise CheckpointError("holds a parameter without a tensor")
    return tensor


def _ordered(items: Any = ()) -> OrderedDict[Any, Any]:
    return OrderedDict(items)


def _defaulting(*_: Any) -> dict[Any, Any]:
    """Stand in for ``collections.defaultdict``: a dict that makes nothing up."""
    return OrderedDict()


def _plain(*values: Any) -> Any:
    """Stand in for torch.device, torch.Size and other values that no tensor depends on."""
    return values


CALLS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "collections.OrderedDict": _ordered,
    "collections.defaultdict": _defaulting,
    "collections.Counter": _defaulting,
    "torch.device": _plain,
    "torch.Size": _plain,
    "numpy.dtype": lambda *_: _Inert("numpy.dtype"),
    "_codecs.encode": _plain,
    **{f"{package}.multiarray.scalar": _plain for package in ("numpy.core", "numpy._core")},
    "builtins.set": _plain,
    "__builtin__.set": _plain,
    "builtins.dict": _defaulting,
    "__builtin__.dict": _defaulting,
}


def _tensors(found: Any) -> dict[str, Tensor]:
    """Return the tensors of a state dict, or those that an inert network would put into its own."""
    if isinstance(found, Mapping) and not all(isinstance(value, Tensor) for value in found.values()):
        raise CheckpointError(f"holds no network; its keys are {', '.join(map(str, list(found)[:6]))}")
    if isinstance(found, Mapping):
        return {str(name): tensor for name, tensor in found.items()}
    tensors: dict[str, Tensor] = {}
    if isinstance(found, _Inert):
        _collect(found, "", tensors, 0)
    return tensors


def _collect(module: _Inert, prefix: str, tensors: dict[str, Tensor], depth: int) -> None:
    """Add parameters, buffers and those of the modules within, as ``Module.state_dict`` orders and names them."""
    if depth > MAX_DEPTH:
        raise CheckpointError(f"holds networks in each other, deeper than {MAX_DEPTH}")
    passing = module.attributes.get("_non_persistent_buffers_set") or ()
    left_out = {name for part in passing for name in (part if isinstance(part, list) else [part])}
    for group in ("_parameters", "_buffers"):
        for name, tensor in (module.attributes.get(group) or {}).items():
            if isinstance(tensor, Tensor) and not (group == "_buffers" and name in left_out):
                tensors[prefix + str(name)] = tensor
    for name, inner in (module.attributes.get("_modules") or {}).items():
        if isinstance(inner, _Inert):
            _collect(inner, f"{prefix}{name}.", tensors, depth + 1)
