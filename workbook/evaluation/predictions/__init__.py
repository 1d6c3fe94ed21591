"""The user's own Phase 2: what its predictions say without retraining anything."""
