"""Words, tables and figures: the only place that turns values into what a person reads."""
