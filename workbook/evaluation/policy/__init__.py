"""Small policies that predict tokens, offline."""
