"""Compile a loop with numba and link it as a library: what the process does that ``libraries`` starts.

numba translates a function that takes addresses and shapes; of what it made, only that function is kept, without the
calls into Python that come with it. Memory that loops ask for comes from the C library.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numba
import numpy as np
from numba import types
from numba.core.runtime import nrtdynmod

from come_nav.core.compiled import OPTIONS, Compiled, compile_parts
from come_nav.core.files import atomic_path
from come_nav.core.machine_code.libraries import ENTRY, sealed
from come_nav.core.machine_code.signature import ADDRESS, Description, flat_kinds

# numba's arrays keep their memory in a block that begins with these: count of users, destructor and its argument,
# address, size, allocator. Blocks that loops make have neither destructor nor allocator.
BLOCK = "{i64, i8*, i8*, i8*, i64}"
MEMORY = """
declare ptr @malloc(i64)
declare void @free(ptr)
define ptr @NRT_MemInfo_alloc_aligned(i64 %size, i32 %align) {
  %wide = zext i32 %align to i64
  %head = add i64 %wide, 64
  %total = add i64 %size, %head
  %block = call ptr @malloc(i64 %total)
  %none = icmp eq ptr %block, null
  br i1 %none, label %out, label %fill
fill:
  %address = ptrtoint ptr %block to i64
  %after = add i64 %address, %head
  %over = urem i64 %after, %wide
  %data = sub i64 %after, %over
  %start = inttoptr i64 %data to ptr
  %fields = getelementptr {i64, ptr, ptr, ptr, i64, ptr}, ptr %block, i64 0
  store {i64, ptr, ptr, ptr, i64, ptr} {i64 1, ptr null, ptr null, ptr null, i64 0, ptr null}, ptr %fields
  %where = getelementptr {i64, ptr, ptr, ptr, i64, ptr}, ptr %block, i64 0, i32 3
  store ptr %start, ptr %where
  %sized = getelementptr {i64, ptr, ptr, ptr, i64, ptr}, ptr %block, i64 0, i32 4
  store i64 %size, ptr %sized
  br label %out
out:
  ret ptr %block
}
define void @NRT_MemInfo_call_dtor(ptr %block) {
  call void @free(ptr %block)
  ret void
}
define void @NRT_Free(ptr %block) {
  call void @free(ptr %block)
  ret void
}
"""


def main(order: dict[str, Any]) -> None:
    """Write the library that an order of ``libraries`` asks for; any exception says that there is none."""
    if str(nrtdynmod._meminfo_struct_type) != BLOCK:
        raise RuntimeError("this numba keeps memory in another way")
    loop = getattr(importlib.import_module(order["module"]), order["name"])
    assert isinstance(loop, Compiled)
    path = Path(order["path"])
    with atomic_path(path) as written, tempfile.TemporaryDirectory() as folder:
        machine_code = Path(folder, "loop.o")
        machine_code.write_bytes(compiled(loop, order["arguments"]))
        linked = Path(folder, "loop.so")
        subprocess.run(["ld", "-shared", "-z", "now", "-o", str(linked), str(machine_code)], check=True)
        ctypes.CDLL(str(linked))  # every symbol is found
        written.write_bytes(sealed(linked.read_bytes()))


def compiled(loop: Compiled, arguments: Sequence[Description]) -> bytes:
    """Return an object file with the function :data:`ENTRY`."""
    compile_parts(loop.function)
    function = numba.cfunc(types.void(*_types(arguments)), **OPTIONS)(_entry(loop, arguments))
    module = llvm.parse_assembly(function.inspect_llvm())
    module.link_in(llvm.parse_assembly(MEMORY))
    name = function.native_name.removeprefix("cfunc.")  # without calls into Python for what it would raise
    for own in module.functions:
        if not own.is_declaration:
            own.linkage = "external" if own.name == name else "internal"
    module.get_function(name).name = ENTRY
    machine = llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(
        cpu=llvm.get_host_cpu_name(),
        features=llvm.get_host_cpu_features().flatten(),
        opt=3,
        reloc="pic",
        codemodel="default",
    )
    passes = llvm.create_new_module_pass_manager()
    passes.add_global_dead_code_eliminate_pass()
    passes.run(module, llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options()))
    code: bytes = machine.emit_object(module)
    return code


def _types(descriptions: Sequence[Description]) -> list[Any]:
    """Return numba's types of the flat arguments."""
    kinds = flat_kinds(descriptions)
    return [types.voidptr if own == ADDRESS else numba.from_dtype(np.dtype(own)) for own in kinds]


def _entry(loop: Compiled, descriptions: Sequence[Description]) -> Any:
    """Return a function of flat arguments that calls the loop."""
    namespace: dict[str, Any] = {"loop": numba.njit(**OPTIONS)(loop.function)}
    namespace["carray"] = numba.carray  # type: ignore[attr-defined, unused-ignore]  # some numbas hide it from mypy
    names = (f"a{number}" for number in count())
    flat: list[str] = []

    def own(kind: str, *rest: Any) -> str:
        if kind == "array":
            address, *shape = [next(names) for _ in range(1 + rest[1])]
            flat.extend([address, *shape])
            namespace[f"of_{address}"] = np.dtype(rest[0]).type
            return f"carray({address}, ({', '.join(shape)},), of_{address})"
        if kind == "tuple":
            module, name, parts = rest
            values = ", ".join(own(*part) for part in parts)
            if not name:
                return f"({values},)"
            namespace[name] = getattr(importlib.import_module(module), name)
            return f"{name}({values})"
        flat.append(next(names))
        return flat[-1]

    call = ", ".join(own(*description) for description in descriptions)
    exec(f"def entry({', '.join(flat)}):\n    loop({call})", namespace)  # numba reads a function's own arguments
    return namespace["entry"]


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
