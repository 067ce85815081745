# SPDX-License-Identifier: MIT
"""The library never prints and never ends the process: its archives refer to nothing that does."""
import re
import subprocess

from facts import Facts, finish

FORBIDDEN = re.compile(
    r"^(v?printf|__v?printf_chk|puts|putchar|putc_unlocked|v?fprintf|__v?fprintf_chk|v?dprintf|perror|stdout|stderr"
    r"|abort|exit|_exit|_Exit|quick_exit|__assert_fail|ggml_abort"
    r"|_ZSt4cout|_ZSt4cerr|_ZSt4clog)$")
# (object file, symbol): why
ALLOWED = {
    # The callback that ggml calls before it aborts writes its one sentence and ends the program with 1.
    ("upstream.cpp.o", "_Exit"),
}

facts = Facts()
complaints = []
checked = 0
used = set()
for layer, of_layer in facts.layers.items():
    member = ""
    output = subprocess.run([facts.nm, "-u", of_layer["archive"]], capture_output=True, text=True, check=True).stdout
    for line in output.splitlines():
        if line.endswith(":"):
            member = line[:-1]
            checked += 1
            continue
        symbol = line.split()[-1].split("@")[0] if line.split() else ""
        if FORBIDDEN.match(symbol):
            if (member, symbol) in ALLOWED:
                used.add((member, symbol))
            else:
                complaints.append(f"{layer}: {member} refers to {symbol}")
for entry in sorted(set(ALLOWED) - used):
    complaints.append(f"allowed and not used: {entry}")
finish(complaints, checked)
