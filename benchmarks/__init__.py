"""What codecs cost in time: `python -m benchmarks`."""

import os

# Read when libraries are imported: threads of OpenBLAS that wait for work would count as CPU time of what is timed next.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")
