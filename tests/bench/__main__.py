"""``python -m tests.bench AREA``"""

from __future__ import annotations

import sys
from importlib import import_module

if __name__ == "__main__":
    import_module(f"tests.bench.{sys.argv[1].replace('-', '_')}").run()
