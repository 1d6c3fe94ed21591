"""From recordings to one table of episodes: read, checked, brought to one convention, split, cut into chunks."""
