# SPDX-License-Identifier: MIT
"""Each public header compiles alone, with the public include directory only."""
from facts import Facts, finish

facts = Facts()
headers = facts.files("include", ".h")
complaints = []
for header in headers:
    messages = facts.compile("/dev/null", [facts.source_dir / "include"], "-include", str(header))
    if messages:
        complaints.append(f"{facts.name(header)} does not compile alone:\n{messages}")
if len(headers) > 12:
    complaints.append(f"include/kvsieve has {len(headers)} headers, at most 12 are allowed")
finish(complaints, len(headers))
