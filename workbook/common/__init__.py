"""What every folder shares: errors, paths, stages, work in parallel, intervals, plain tables, the guide's numbers."""
