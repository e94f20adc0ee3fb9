"""magika on files. Arguments: files. Prints the kind of each, and how sure it is."""

import json
import pathlib
import sys

from magika import Magika

results = Magika().identify_paths([pathlib.Path(p) for p in sys.argv[1:]])
print(json.dumps([{"label": r.output.label, "model": r.dl.label, "score": r.score} for r in results]))
