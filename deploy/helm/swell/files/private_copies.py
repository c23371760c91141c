"""Copies secrets to where nobody but their reader may read them: SOURCE=TARGET …

A mounted Secret belongs to root and is readable by the Pod's group; Swell refuses keys that others can read.
"""

import os
import sys
from pathlib import Path

os.umask(0o077)
for pair in sys.argv[1:]:
    source, _, target = pair.partition("=")
    Path(target).unlink(missing_ok=True)
    Path(target).write_bytes(Path(source).read_bytes())
