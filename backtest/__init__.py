"""Everything that pretends to be an exchange, and the policy and risk rules shared with live."""
