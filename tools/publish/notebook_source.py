"""Print the source of a notebook as text, for `git diff` (see CONTRIBUTING.md)."""

import json
import sys

with open(sys.argv[1], encoding="utf-8") as file:
    notebook = json.load(file)
sys.stdout.reconfigure(encoding="utf-8")
for cell in notebook["cells"]:
    tags = cell["metadata"].get("tags", [])
    print(f"# %% [{cell['cell_type']}]", *tags)
    print("".join(cell["source"]), end="\n\n")
