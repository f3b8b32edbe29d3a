"""What asking costs: the price list, tokens counted beforehand, and the plan of a study."""
