"""Figures of the notebooks and the report, one module a notebook. Each title states what the figure shows."""
