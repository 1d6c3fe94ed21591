"""The LIBERO simulator. It needs the extra `sim`; who imports from here asks first whether that is there."""
