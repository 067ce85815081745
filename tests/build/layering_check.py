# SPDX-License-Identifier: MIT
"""Dependencies point one way: a policy source that includes ggml does not compile, and no layer includes what the
design keeps from it."""
import re
import sys
from pathlib import Path

from facts import Facts, finish

facts = Facts()
complaints = []
checked = 0

# policy, io and eval: no ggml within reach of the compiler
probe = facts.source_dir / "tests/build/policy_without_ggml.cpp"
if facts.compile(probe, [], "-DWITH_GGML", "-include", "ggml.h") is None:
    print("ggml.h is in the compiler's own include path, so that no layer can be kept from it")
    sys.exit(77)
for layer in ("kvsieve_policy", "kvsieve_io", "kvsieve_eval"):
    include_dirs = [d for d in facts.layers[layer]["include_dirs"] if d]
    checked += 1
    messages = facts.compile(probe, include_dirs)
    if messages:
        complaints.append(f"{layer}: the probe without ggml does not compile:\n{messages}")
    messages = facts.compile(probe, include_dirs, "-DWITH_GGML")
    if not messages or "ggml.h: No such file" not in messages and "'ggml.h' file not found" not in messages:
        complaints.append(f"{layer}: a source that includes ggml.h has to fail for want of that file, but came: "
                          f"{messages or 'it compiled'}")
    for directory in include_dirs:
        if (Path(directory) / "ggml.h").exists():
            complaints.append(f"{layer}: include directory {directory} holds ggml.h")

# who may include what, by name
UPSTREAM = {
    "mtmd": re.compile(r"mtmd|clip\.h"),
    "llama": re.compile(r"llama(-cpp)?\.h$"),
    "ggml": re.compile(r"(ggml|gguf)[a-z-]*\.h$"),
}
ALLOWED = {
    "gguf": {"ggml"},
    "cache": {"ggml"},
    "graph": {"ggml"},
    "text": {"ggml", "llama"},
    "vision": {"ggml", "llama", "mtmd"},
    "engine": {"ggml", "llama"},
}
ORDER = ["policy", "io", "eval", "gguf", "cache", "graph", "text", "vision", "engine"]
MAY_USE = {
    "policy": {"policy"},
    "io": {"policy", "io"},
    "eval": {"policy", "io", "eval"},
    "gguf": {"policy", "gguf"},
    "cache": {"policy", "cache"},
    "graph": {"policy", "gguf", "cache", "graph"},
    "text": {"policy", "gguf", "text"},
    "vision": {"policy", "gguf", "text", "vision"},
    "engine": set(ORDER) - {"eval"},
}
for source in facts.files("src", ".cpp", ".h") + facts.files("apps", ".cpp", ".h") + facts.files("include", ".h"):
    name = facts.name(source)
    layer = name.split("/")[1] if name.startswith("src/") else ""
    checked += 1
    for include in re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', source.read_text(), re.M):
        for library, pattern in UPSTREAM.items():
            if pattern.search(include) and "/" not in include and library not in ALLOWED.get(layer, set()):
                complaints.append(f"{name} includes {include}, which {layer or 'this folder'} may not")
        other = include.split("/")[0]
        if "/" in include and layer and other in ORDER and other not in MAY_USE[layer]:
            complaints.append(f"{name} includes {include}: {layer} may not use {other}")
        if name.startswith("include/") and re.search(r"json|CLI|fmt|zlib|zip", include):
            complaints.append(f"{name} includes {include}: public headers use standard types only")
finish(complaints, checked)
