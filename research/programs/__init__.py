"""From text to programs: expressions, operators, shared sub-expressions, joins, panels of symbols."""
