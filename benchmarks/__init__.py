"""What codecs cost in time: `python -m benchmarks`."""

import os

# Read by libraries at import: threads of OpenBLAS that wait for work would count as time of what is measured next.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")
