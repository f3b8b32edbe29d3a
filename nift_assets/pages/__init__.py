"""Pages for people: the report and the contracts, with the charts and plots on them."""
