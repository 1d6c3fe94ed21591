"""Criteria, claims and the recommendation: rules, and values that follow from them."""
