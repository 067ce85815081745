# SPDX-License-Identifier: MIT
"""Every source belongs to a target, every file has its licence line, none is longer than 800 lines."""
import json

from facts import Facts, finish

LONGEST = 800

facts = Facts()
complaints = []
compiled = {entry["file"] for entry in json.loads((facts.binary_dir / "compile_commands.json").read_text())}
sources = [s for folder in ("src", "apps", "tests", "include", "bench", "examples", "cmake")
           for s in facts.files(folder, ".cpp", ".h", ".cmake", ".py", ".txt")]
sources += facts.files("tools", ".py", ".sh") + [facts.source_dir / name for name in ("demo", "test", "CMakeLists.txt")]
# compiled by a check of its own
ELSEWHERE = {"tests/build/policy_without_ggml.cpp", "cmake/upstream_features.cpp"}
for source in sources:
    name = facts.name(source)
    if name.startswith("tests/data/"):
        continue
    lines = source.read_text().splitlines()
    if len(lines) > LONGEST:
        complaints.append(f"{name} has {len(lines)} lines, at most {LONGEST} are allowed")
    if not any("SPDX-License-Identifier: MIT" in line for line in lines[:3]):
        complaints.append(f"{name} lacks the line SPDX-License-Identifier: MIT at its top")
    if source.suffix == ".cpp" and name.split("/")[0] in ("src", "apps", "tests") and name not in ELSEWHERE:
        if str(source) not in compiled:
            complaints.append(f"{name} belongs to no target")
finish(complaints, len(sources))
